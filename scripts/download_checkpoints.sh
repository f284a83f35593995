#!/usr/bin/env bash
# Pretrained files into ./checkpoints (or the folder named): EnCodec's released weights, the LAION CLAP file whose name is
# the second argument (by default the one that musiclm_large_small_context was made with), and where its stages are.
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
    [ -f "$folder/$name" ] || { echo "not in $folder yet: $name" && missing=1; }
done
if [ "$missing" = 1 ]; then
    echo "these are in a shared folder that can only be opened with a browser; save them into $folder:"
    echo "https://drive.google.com/drive/folders/1347glwEc-6XWulfU7NGrFrYTvTnjeVJE"
fi
