//! What expressions give, and that none of them can take more than it is allowed.

use super::*;

fn run(source: &str, input: &str) -> Result<String, ExprError> {
    let filter = Filter::compile(source).unwrap_or_else(|error| panic!("{source}: {error}"));
    filter.run(input.as_bytes(), &Limits::default()).map(|text| String::from_utf8(text).unwrap())
}

fn gives(source: &str, input: &str, output: &str) {
    assert_eq!(run(source, input).as_deref(), Ok(output), "{source}");
}

fn fault(source: &str) -> Fault {
    run(source, "null").map(|text| text.len()).unwrap_err().fault
}

fn is_stopped(source: &str) {
    let fault = fault(source);
    assert!(matches!(fault, Fault::OutOfFuel { .. }), "{source}: {fault:?}");
}

#[test]
fn usual_jq_gives_what_jq_gives() {
    gives(".a.b[0]", r#"{"a":{"b":[7]}}"#, "7");
    gives(".missing", "{}", "null");
    gives(".a + 1", r#"{"a":1.5}"#, "2.5");
    gives("4 / 2", "null", "2");
    gives("1 / 4", "null", "0.25");
    gives("7 % 3", "null", "1");
    gives("[.[] | select(. > 1)] | length", "[1,2,3]", "2");
    gives("map(.x) | add", r#"[{"x":1},{"x":2}]"#, "3");
    gives("{a, b: .c, \"d e\": 1}", r#"{"a":1,"c":2}"#, r#"{"a":1,"b":2,"d e":1}"#);
    gives("\"sum: \\(.a) \\(.b)\"", r#"{"a":[1,2],"b":"x"}"#, r#""sum: [1,2] x""#);
    gives("to_entries", r#"{"a":1}"#, r#"[{"key":"a","value":1}]"#);
    gives("with_entries(.value += 1)", r#"{"a":1,"b":2}"#, r#"{"a":2,"b":3}"#);
    gives("group_by(.k) | map(length)", r#"[{"k":1},{"k":2},{"k":1}]"#, "[2,1]");
    gives("sort_by(-.)", "[1,3,2]", "[3,2,1]");
    gives("unique", "[2,1,2]", "[1,2]");
    gives(".a.b = 5", "{}", r#"{"a":{"b":5}}"#);
    gives(".[1] |= . * 10", "[1,2,3]", "[1,20,3]");
    gives("del(.a)", r#"{"a":1,"b":2}"#, r#"{"b":2}"#);
    gives("del(.[1])", "[1,2,3]", "[1,3]");
    gives("[paths]", r#"{"a":[1]}"#, r#"[["a"],["a",0]]"#);
    gives("[limit(3; range(100))]", "null", "[0,1,2]");
    gives("first(range(10; 0; -1))", "null", "10");
    gives("reduce .[] as $x (0; . + $x)", "[1,2,3]", "6");
    gives("[foreach .[] as $x (0; . + $x)]", "[1,2,3]", "[1,3,6]");
    gives("try error(\"no\") catch .", "null", r#""no""#);
    gives(".a // \"none\"", "{}", r#""none""#);
    gives("if . then 1 else 2 end", "false", "2");
}

#[test]
fn usual_text_functions_give_what_jq_gives() {
    gives(".[2:4]", "\"abcdef\"", r#""cd""#);
    gives(".[-2:]", "[1,2,3]", "[2,3]");
    gives("ascii_upcase, 1 | tostring | select(. == \"AB\")", "\"ab\"", r#""AB""#);
    gives("split(\",\") | join(\"-\")", "\"a,b\"", r#""a-b""#);
    gives("[.[] | tonumber]", r#"["1","2.5"]"#, "[1,2.5]");
    gives("@base64, empty", "\"hi\"", r#""aGk=""#);
    gives("@base64d", "\"aGk=\"", r#""hi""#);
    gives("@uri", "\"a b&c\"", r#""a%20b%26c""#);
    gives("@html", "\"<a>\"", r#""&lt;a&gt;""#);
    gives("@json", "[1]", r#""[1]""#);
    gives("@csv", r#"[1,"a\"b",null]"#, r#""1,\"a\"\"b\",""#);
    gives("fromjson.a", r#""{\"a\":[1]}""#, "[1]");
    gives("tojson", r#"{"a":1.0}"#, r#""{\"a\":1}""#);
    gives("has(\"a\"), empty", r#"{"a":1}"#, "true");
    gives("contains({a: [1]})", r#"{"a":[1,2],"b":3}"#, "true");
    gives("index(\"b\")", "\"abab\"", "1");
    gives("indices(1)", "[1,2,1]", "[0,2]");
    gives("transpose", "[[1,2],[3]]", "[[1,3],[2,null]]");
    gives("[splits(\", *\")]", "\"a, b,c\"", r#"["a","b","c"]"#);
    gives("test(\"^a+$\")", "\"aaa\"", "true");
    gives("capture(\"(?<y>[0-9]+)-(?<m>[0-9]+)\")", "\"2024-05\"", r#"{"y":"2024","m":"05"}"#);
    gives("gsub(\"[aeiou]\"; \"*\")", "\"redis\"", r#""r*d*s""#);
    gives("[scan(\"[a-z]+\")]", "\"ab 1 cd\"", r#"["ab","cd"]"#);
    gives("[match(\"é(.)\"; \"g\").offset]", "\"aéb éc\"", "[1,4]");
    gives("any(.[]; . > 2), empty", "[1,3]", "true");
    gives("all", "[true,false]", "false");
    gives("IN(1, 2)", "2", "true");
    gives("from_entries", r#"[{"key":"a","value":1}]"#, r#"{"a":1}"#);
    gives("min_by(.a).b", r#"[{"a":2,"b":1},{"a":1,"b":9}]"#, "9");
    gives("[.. | numbers]", r#"{"a":[1,{"b":2}]}"#, "[1,2]");
    gives("walk(if type == \"number\" then . + 1 else . end)", "[1,[2]]", "[2,[3]]");
    gives("def f($n): if $n <= 1 then 1 else $n * f($n - 1) end; f(5)", "null", "120");
    gives(
        "label $out | foreach .[] as $i (0; . + $i; if . > 3 then ., break $out else empty end)",
        "[1,2,3,4]",
        "6",
    );
    gives("floor, empty", "1.7", "1");
    gives("pow(2; 10)", "null", "1024");
    gives("limit(1; .[] | select(.a == 1) | .b)", r#"[{"a":1,"b":2},{"a":1,"b":3}]"#, "2");
    gives(". == {\"b\":1,\"a\":2}", r#"{"a":2,"b":1}"#, "true");
    gives("getpath([\"a\",\"b\"])", r#"{"a":{"b":3}}"#, "3");
    gives("ltrimstr(\"a\") | ascii_downcase", "\"aBC\"", r#""bc""#);
    gives("flatten", "[1,[2,[3]]]", "[1,2,3]");
    gives("{a: 1} * {a: {b: 2}}", "null", r#"{"a":{"b":2}}"#);
    gives("tojson | fromjson", r#"{"a":[null,true,1e3,"é\n"]}"#, r#"{"a":[null,true,1000,"é\n"]}"#);
    gives(". ", "9007199254740993", "9007199254740993");
}

#[test]
fn an_expression_gives_exactly_one_value() {
    assert_eq!(fault("empty"), Fault::NoOutput);
    assert_eq!(fault("1, 2"), Fault::ManyOutputs);
    assert!(matches!(fault("1, error(\"x\")"), Fault::Failed { .. }));
}

#[test]
fn an_error_says_what_and_where() {
    let error = run(".a.b", r#"{"a":[1]}"#).unwrap_err();
    assert_eq!(error.code(), "expression_failed");
    assert_eq!(error.to_string(), "expression `.a.b` failed: cannot index [1] with \"b\"");
    assert_eq!(
        run("error(\"no stock\")", "0").unwrap_err().to_string(),
        "expression `error(\"no stock\")` failed: no stock"
    );
    assert!(run("1 / 0", "null").unwrap_err().to_string().contains("divided by zero"));
}

#[test]
fn what_does_not_compile_is_told_with_its_column() {
    let error = |source: &str| Filter::compile(source).unwrap_err();
    assert!(error(".a | ]").contains("column 6"), "{}", error(".a | ]"));
    assert_eq!(error(".a | lenght"), "column 6: filter `lenght` does not exist; did you mean `length`?");
    assert!(error("$x").contains("variable `$x` does not exist"));
    assert!(error("\"abc").contains("column"), "{}", error("\"abc"));
    assert!(error("map()").contains("column"), "{}", error("map()"));
    assert!(error("map(.; .)").contains("another number of arguments"), "{}", error("map(.; .)"));
}

#[test]
fn nothing_outside_of_the_input_can_be_reached() {
    for source in [
        "input",
        "inputs",
        "env",
        "$ENV",
        "$ENV.PATH",
        "now",
        "halt",
        "halt_error",
        "halt(1)",
        "debug",
        "stderr",
        "input_filename",
        "input_line_number",
        "include \"a\"; .",
        "import \"a\" as a; a::f",
        "import \"a\" as $a; $a",
        "$__loc__",
        "$__prog_args",
        "get_search_list",
        "localtime",
        "strflocaltime(\"%Y\")",
        "mktime",
        "todate",
        "modulemeta",
        "repl",
        "ltrimstr::x",
    ] {
        assert!(Filter::compile(source).is_err(), "{source}");
    }
}

#[test]
fn endless_recursion_is_stopped() {
    is_stopped("def f: f; f");
    is_stopped("def f: 1 | f; f");
    is_stopped("def f($x): f($x + 1); f(0)");
    is_stopped("def f: . as $x | [$x] | length | f; 0 | f");
    is_stopped("[recurse(. + 1; true)] | length");
    is_stopped("[repeat(1)]");
    is_stopped("last(repeat(1))");
    is_stopped("until(false; .)");
    is_stopped("[while(true; .)]");
    is_stopped("label $l | def f: f; f");
}

#[test]
fn endless_generators_are_stopped() {
    is_stopped("[range(infinite)]");
    is_stopped("[range(0; 1; 0)]");
    is_stopped("last(range(1e18))");
    is_stopped("[limit(1e9; repeat(1))]");
    is_stopped("first(range(infinite) | select(. < 0))");
    is_stopped("reduce range(1e12) as $i (0; . + 1)");
    is_stopped("[foreach range(1e12) as $i (0; 1; empty)]");
    is_stopped("[range(3000) as $a | range(3000) as $b | 1] | length");
    is_stopped("[skip(1e15; repeat(1))]");
    is_stopped("isempty(repeat(empty))");
    is_stopped("any(repeat(false); .)");
    is_stopped("[range(1000)] | [combinations(5)] | length");
    is_stopped("[range(1000)] | [., ., .] | [combinations] | length");
}

#[test]
fn growing_values_are_stopped() {
    is_stopped("reduce range(60) as $i (\"x\"; . + .)");
    is_stopped("reduce range(60) as $i ([1]; . + .)");
    is_stopped("\"x\" * 1e9");
    is_stopped("1e9 * \"x\"");
    is_stopped("\"x\" * infinite");
    is_stopped("[range(1e9)] | length");
    is_stopped(".[1e9] = 1");
    is_stopped(".[9223372036854775807] = 1");
    is_stopped("reduce range(60) as $i (\"x\"; [., .] | tojson)");
    is_stopped("reduce range(60) as $i (\"x\"; \"\\(.)\\(.)\")");
    is_stopped("reduce range(60) as $i (\"x\"; gsub(\"x\"; \"xx\"))");
    is_stopped("[\"x\" * 100000 | splits(\"\")] | length | [range(.)] | map(\"y\" * 1000) | add");
    is_stopped("(\"x\" * 1000000) as $s | [range(1e6) | $s | startswith($s)] | length");
    is_stopped("(\"x\" * 1000000) as $s | [range(1e6) | $s | length] | length");
    is_stopped("(\"x\" * 1000000) as $s | [range(1e6) | $s == $s] | length");
    is_stopped("(\"x\" * 1000000) as $s | [range(1e6) | $s | test(\"y\")] | length");
    is_stopped("(\"x\" * 1000000) as $s | [range(1e6) | $s | .[5:]] | length");
    is_stopped("(\"x\" * 1000000) as $s | [range(1e6) | $s | explode] | length");
    is_stopped("[range(100000) | tostring] | [range(100000) as $i | index($i | tostring)]");
}

#[test]
fn structure_that_explodes_only_when_walked_or_written_is_stopped() {
    let doubled = "reduce range(60) as $i (1; [., .])";
    assert_eq!(fault(doubled), Fault::OutputTooLarge { limit_bytes: 1 << 20 });
    is_stopped(&format!("{doubled} | [..] | length"));
    is_stopped(&format!("{doubled} | tojson"));
    is_stopped(&format!("{doubled} | flatten"));
    is_stopped(&format!("[{doubled}, {doubled}] | .[0] == .[1]"));
    is_stopped(&format!("[{doubled}, {doubled}] | sort"));
    is_stopped(&format!("{doubled} | walk(.)"));
    is_stopped(&format!("{doubled} | [paths] | length"));
    is_stopped(&format!("{doubled} | contains({doubled})"));
    let error = fault(&format!("{doubled} | error"));
    assert!(matches!(&error, Fault::Failed { message } if message.len() < 2000), "{error:?}");
}

#[test]
fn exhaustion_cannot_be_caught() {
    is_stopped("try repeat(empty) catch 1");
    is_stopped("(def f: f; f)? // 1");
    is_stopped("[.[]?, (try [repeat(1)] catch 2)] // 3");
    is_stopped("try (try until(false; .) catch until(false; .)) catch 5");
    assert_eq!(fault("try (def f: 1 + f; f) catch 1"), Fault::TooRecursive);
    assert!(matches!(fault("try (reduce range(1000) as $i (null; [.])) catch 1"), Fault::TooDeep { .. }));
}

#[test]
fn deep_recursion_and_nesting_end_with_an_error() {
    assert_eq!(fault("def f: 1 + f; f"), Fault::TooRecursive);
    assert_eq!(fault("def f: [f]; f"), Fault::TooRecursive);
    assert_eq!(fault("def f: {a: f}; f"), Fault::TooRecursive);
    assert_eq!(fault("def f: (f | .) | .; f"), Fault::TooRecursive);
    assert_eq!(fault("def f: try f; f"), Fault::TooRecursive);
    assert!(matches!(fault("reduce range(100000) as $i (null; [.])"), Fault::TooDeep { depth: 128 }));
    assert!(matches!(fault("reduce range(100000) as $i (null; {a: .})"), Fault::TooDeep { .. }));
    assert!(matches!(fault("reduce range(100000) as $i ({}; .a = .)"), Fault::TooDeep { .. }));
    assert!(matches!(fault("reduce range(100000) as $i ([]; .[0] = .)"), Fault::TooDeep { .. }));
    assert!(matches!(fault("reduce range(100000) as $i ([]; [.] + [.])"), Fault::TooDeep { .. }));
    assert!(matches!(fault("last(recurse([.]))"), Fault::TooDeep { .. }));
    assert!(
        Filter::compile("fromjson")
            .unwrap()
            .run(format!("\"{}\"", "[".repeat(10_000)).as_bytes(), &Limits::default())
            .is_err()
    );
}

#[test]
fn closures_cannot_pile_up() {
    assert!(Filter::compile("def f(g): f(1 | g); f(.)").unwrap_err().contains("pass values"));
    assert!(Filter::compile("def f(g): def h: f(1 | g); h; f(.)").is_err());
    assert!(Filter::compile("def f(g): g; def f(g): f(g); f(.)").is_err());
    gives("def twice(g): g | g; twice(. + 1)", "1", "3");
}

#[test]
fn long_programs_compile_or_are_refused_and_never_overflow_the_stack() {
    let deep = |open: &str, inner: &str, close: &str, times: usize| {
        Filter::compile(&format!("{}{inner}{}", open.repeat(times), close.repeat(times)))
            .map(|filter| filter.run(b"null", &Limits::default()).map_err(|error| error.fault))
    };
    for times in [20, 79, 200, 2000, 8000] {
        for (open, inner, close) in [
            ("(", "1", ")"),
            ("[", "1", "]"),
            (".|", ".", ""),
            ("-", "1", ""),
            ("try ", ".", ""),
            ("1+", "1", ""),
            ("{a:", "1", "}"),
            ("if . then ", "1", " end"),
            ("def f: ", "1", "; f"),
            (". as $x|", ".", ""),
            ("\"\\(", "1", ")\""),
            (".[", "0", "]"),
            ("label $l|", ".", ""),
            (".,", ".", ""),
            ("1//", "1", ""),
            ("reduce . as $x (", "1", ";.)"),
            ("first(", "1", ")"),
            (". as [", "$x", "] | ."),
            (".a", "", ""),
            ("1 and ", "true", ""),
            (".=", "1", ""),
        ] {
            if open.len() * times + close.len() * times < 16 << 10 {
                drop(deep(open, inner, close, times));
            }
        }
    }
    assert!(Filter::compile(&"1+".repeat(9000)).unwrap_err().contains("at most"));
}

#[test]
fn more_fuel_lets_a_heavy_expression_through() {
    let filter = Filter::compile("[range(10000)] | add").unwrap();
    let error = filter.run(b"null", &Limits::default().with_fuel(1000)).unwrap_err();
    assert!(error.is_out_of_fuel());
    assert_eq!(error.code(), "expression_out_of_fuel");
    assert_eq!(filter.run(b"null", &Limits::default()).unwrap(), b"49995000");
}

#[test]
fn compiled_filters_are_shared_between_threads() {
    fn shared<T: Send + Sync + 'static>(_: &T) {}
    let filter = Filter::compile(".a").unwrap();
    shared(&filter);
}
