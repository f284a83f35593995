#!/usr/bin/env bash
# The Free Music Archive's metadata, which preprocess_data.py --filter_fma needs, into ./data/fma_metadata.
set -euo pipefail
. "$(dirname "$0")/download.sh"
folder=${1:-data}
fetch sha1sum f0df49ffe5f2a6008d7dc83c6915b31835dfe733 \
    https://os.unil.cloud.switch.ch/fma/fma_metadata.zip "$folder/fma_metadata.zip"
unpack "$folder/fma_metadata.zip" "$folder"
