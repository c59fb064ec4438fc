//! Filters compiled from arbitrary text.

use proptest::prelude::*;
use tidemill_workflow::{Filter, Limits};

const PIECES: &str = r##".
.a
[
]
{
}
(
)
|
,
;
:
"x"
"\(
1
-
+
*
//
as
$x
def f:
def g(h):
f
g(.)
if
then
else
end
try
catch
reduce
foreach
label
break
..
.[]
?
|=
+=
==
and
or
not
map(.)
range(10)
recurse
repeat(.)
limit(3;
tojson
length
@base64
#
sort
path(..)
empty
error
input
1e999
import
é"##;

/// Pieces of jq, put together at random: mostly nonsense, sometimes a program.
fn program() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(PIECES.lines().collect::<Vec<_>>());
    prop::collection::vec(piece, 0..25).prop_map(|pieces| pieces.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_program_compiles_and_runs_or_is_refused(source in program()) {
        if let Ok(filter) = Filter::compile(&source) {
            let limits = Limits::default().with_fuel(20_000);
            if let Ok(output) = filter.run(br#"{"a":[1,"x",{"b":null}]}"#, &limits) {
                prop_assert!(serde_json::from_slice::<serde_json::Value>(&output).is_ok(), "{source}");
            }
        }
    }

    #[test]
    fn any_text_compiles_or_is_refused(source in any::<String>()) {
        drop(Filter::compile(&source));
    }
}
