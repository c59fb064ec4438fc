# Definitions beside those of jaq's own prelude. Nothing here reads the clock, the environment or a file.
def in(xs): . as $key | xs | has($key);
def inside(xs): . as $inner | xs | contains($inner);
def index($i): indices($i)[0];
def rindex($i): indices($i)[-1:][0];
def transpose: . as $rows | ([$rows[] | length] | max // 0) as $width | [range($width) as $i | [$rows[][$i]]];
def ascii: [.] | implode;
def toarray: if isarray then . else [.] end;
def trimstr($x): ltrimstr($x) | rtrimstr($x);
def IN(s): . as $value | any(s; . == $value);
def IN(source; s): any(source; . as $value | any(s; . == $value));
def INDEX(f): reduce .[] as $row ({}; . + { ($row | f | tostring): $row });
def GROUP(f): group_by(f);
def leaf_paths: paths(scalars);
def from_entries:
  reduce .[] as $entry ({};
    . + { ($entry | if has("key") then .key elif has("name") then .name else .k end
             | if isstring then . else tojson end):
          ($entry | if has("value") then .value else .v end) });
def with_entries(f): to_entries | map(f) | from_entries;
def finites: select(isnumber and (isinfinite or isnan | not));
def @json: tojson;
def @csv: [.[] | if isstring then "\"" + (split("\"") | join("\"\"")) + "\"" elif . == null then "" else tojson end] | join(",");
def @tsv: [.[] | if isstring then split("\t") | join("\\t") elif . == null then "" else tojson end] | join("\t");
