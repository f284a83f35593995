#!/usr/bin/env bash
# Downloads into ./checkpoints (or the folder named first): EnCodec's released weights, and the LAION CLAP file named
# second (default: that of musiclm_large_small_context). Prints where the released stages are.
set -euo pipefail
. "$(dirname "$0")/download.sh"
folder=${1:-checkpoints}
clap=${2:-630k-audioset-best.pt}
laion=https://huggingface.co/lukewys/laion_clap/resolve/main/$clap

# The file's name holds the beginning of its hash.
fetch sha256sum d7cc33bc https://dl.fbaipublicfiles.com/encodec/v0/encodec_24khz-d7cc33bc.th \
    "$folder/encodec_24khz-d7cc33bc.th"
fetch_from_hub "$laion" "$folder/$clap"

missing=0
for name in musiclm_large_small_context.json semantic.transformer.14000.pt coarse.transformer.18000.pt \
    fine.transformer.24000.pt clap.rvq.950_no_fusion.pt kmeans_10s_no_fusion.joblib; do
    [ -f "$folder/$name" ] || { echo "not yet in $folder: $name" && missing=1; }
done
if [ "$missing" = 1 ]; then
    echo "these are in a shared folder that only a browser can open; save them into $folder:"
    echo "https://drive.google.com/drive/folders/1347glwEc-6XWulfU7NGrFrYTvTnjeVJE"
fi
