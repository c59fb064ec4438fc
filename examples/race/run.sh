#!/usr/bin/env bash
# Two vendors are asked at once. One answers in half a second and wins; the other would take a minute, and is hung up on.
. "$(dirname "$0")/../pool.sh"
serve north "$here/vendor.py" north 60000 90
serve south "$here/vendor.py" south 500 95
pool http_request.allow_networks=127.0.0.0/8

tidemill workflow publish "$here/quote.yaml"
tidemill run quote --id q1 --input "{\"north\":\"$north\",\"south\":\"$south\"}" --wait
# the worker that has the other call in hand learns within about a second that it is cancelled
await "the loser is hung up on" grep -q 'hung up' "$folder/north.log"
await "nothing of it is left" bash -c '[ -z "$(tidemill --json runs --blocks --state live)" ]'
echo && tidemill runs --blocks | sort
for vendor in north south; do
  echo && echo "$vendor:"
  tail -n +2 "$folder/$vendor.log" | sed 's/^/  /'
done
