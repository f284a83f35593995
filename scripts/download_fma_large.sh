#!/usr/bin/env bash
# The Free Music Archive's large set: 106,574 clips of 30 s, 93 GiB, into ./data/fma_large (or the folder named).
set -euo pipefail
. "$(dirname "$0")/download.sh"
folder=${1:-data}
fetch sha1sum 497109f4dd721066b5ce5e5f250ec604dc78939e \
    https://os.unil.cloud.switch.ch/fma/fma_large.zip "$folder/fma_large.zip"
unpack "$folder/fma_large.zip" "$folder"
