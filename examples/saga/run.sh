#!/usr/bin/env bash
# A trip that cannot be had as a whole: the third booking fails, and the first two are undone.
. "$(dirname "$0")/../pool.sh"
serve bookings "$here/bookings.py"
pool http_request.allow_networks=127.0.0.0/8

tidemill workflow publish "$here/trip.yaml"
if tidemill run trip --id ada --input "{\"traveller\":\"Ada\",\"bookings\":\"$bookings\"}" --wait 2>"$folder/why.txt"; then
  fail "there was a car after all"
fi
cat "$folder/why.txt"
tidemill status ada
echo && echo "the bookings:"
tail -n +2 "$folder/bookings.log" | sed 's/^/  /'
echo && tidemill verify ada
