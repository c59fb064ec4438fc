#!/usr/bin/env bash
# A teaser waits for its editor: she rejects it with feedback, it is drafted again, and she approves.
. "$(dirname "$0")/../pool.sh"
pool

tidemill workflow publish "$here/teaser.yaml"
tidemill run teaser --id tide --input '{"text":"The tide mill grinds twice a day, and an hour later each day"}'
asked() { # round: waits until the question is asked, and shows it
  await "question $1" bash -c "tidemill --json approvals | grep -q '\"iteration\":$1,'"
  echo && tidemill approvals
}
asked 1
tidemill reject tide review --by ann --feedback 'at most 6 words, please'
asked 2
tidemill approve tide review --by bob 2>&1 && fail "bob is no editor"
tidemill approve tide review --by emil --role editors --iteration 1 2>&1 && fail "nobody decides about what is gone"
tidemill approve tide review --by ann
echo && tidemill result tide --wait
tidemill status tide
