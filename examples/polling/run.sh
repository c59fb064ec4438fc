#!/usr/bin/env bash
# A report takes its time: it is ordered, asked for again and again, and fetched. One worker with one slot does other work meanwhile.
. "$(dirname "$0")/../pool.sh"
serve reports "$here/reports.py"
pool http_request.allow_networks=127.0.0.0/8 worker.max_parallel=1

tidemill workflow publish "$here/export.yaml"
tidemill run export --id tides --input "{\"reports\":\"$reports\",\"year\":2026}"
await "the report is asked for" grep -q '20 %' "$folder/reports.log"
echo "meanwhile: $(tidemill enqueue echo --input '"the only slot is free"' --wait)"
tidemill result tides --wait
tidemill status tides
echo && echo "the reports:"
tail -n +2 "$folder/reports.log" | sed 's/^/  /'
