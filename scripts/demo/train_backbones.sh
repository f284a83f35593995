#!/bin/sh
# From a corpus to the demo's backbones: EnCodec, CLAP, and MERT on EnCodec's tokens. Run it from the repository's root.
# Interrupted, each training goes on with --continue_from_dir results/demo/NAME in place of --results_folder.
set -e
python scripts/make_demo_corpus.py --output data/demo_corpus --hours 2 --seed 0
for name in encodec clap mert; do
    model=""
    if [ "$name" = mert ]; then model="--model_config configs/demo/model.json"; fi
    # shellcheck disable=SC2086
    python scripts/train_$name.py --config scripts/demo/train_$name.json $model --results_folder results/demo/$name
    newest=$(ls -d results/demo/$name/checkpoints/step_* | tail -n 1)
    python scripts/demo/halve_weights.py "$newest/$name" configs/demo/backbones/$name
done
