#!/usr/bin/env bash
# Counts the words of a folder of files: each file by itself, side by side, and then all together. One file is no text; that is tolerated.
. "$(dirname "$0")/../pool.sh"
mkdir "$folder/texts" && cp "$here"/texts/*.txt "$folder/texts"
printf '\377\376\000\001 not a text' >"$folder/texts/photo.jpg"
pool exec.allow.ls="$(command -v ls)" exec.allow.cat="$(command -v cat)"

tidemill workflow publish "$here/words.yaml"
tidemill run words --id count --input "{\"folder\":\"$folder/texts\"}" --wait
tidemill status count
echo && echo "each file was counted by a run of its own:"
tidemill --json runs --parent count --blocks | python3 -c '
import json, sys
for run in sorted(map(json.loads, sys.stdin), key=lambda run: run["id"]):
    print(" ", run["id"], run["state"])'
echo && echo "the shell counts the same:"
cat "$here"/texts/*.txt | tr 'A-Z' 'a-z' | grep -oE '[a-z]+' | LC_ALL=C sort | uniq -c | LC_ALL=C sort -k1,1nr -k2 | head -n 5
