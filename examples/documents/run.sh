#!/usr/bin/env bash
# Specification, research, plan, tasks: each is written as Markdown, and waits at a gate until somebody passes it on.
. "$(dirname "$0")/../pool.sh"
mkdir "$folder/documents"
pool exec.allow.tee="$(command -v tee)" exec.allow.grep="$(command -v grep)"

python3 - "$here" "$folder/documents" >"$folder/input.json" <<'PYTHON'
import json, pathlib, sys
here, folder = map(pathlib.Path, sys.argv[1:])
templates = {path.stem: path.read_text() for path in sorted((here / "templates").glob("*.md"))}
idea = json.loads((here / "idea.json").read_text())
print(json.dumps({"idea": idea, "templates": templates, "notes": str(here / "notes.md"), "folder": str(folder)}))
PYTHON
tidemill workflow publish "$here/documents.yaml"
tidemill run documents --id quay --input "@$folder/input.json"

at() { # gate, who, role, answer, feedback: decides as soon as the gate asks
  local words=(tidemill "$4" quay "$1_gate" --by "$2" --role "$3")
  [ -z "${5:-}" ] || words+=(--feedback "$5")
  await "an answer at the gate of the $1" "${words[@]}"
  echo "$1: $2 ($3) says $4${5:+: $5}"
}
at spec paula product reject 'say who pays for it'
at spec paula product approve
at research emil engineering approve
at plan emil engineering reject 'ask the lock keeper first'
at plan emil engineering approve
at tasks paula product approve
tidemill result quay --wait
tidemill status quay
cd "$folder/documents"
for document in *.md; do
  echo && echo "──── $document" && cat "$document" && echo
done
