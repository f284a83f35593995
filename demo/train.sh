#!/bin/sh
# Makes demo/bundle from scratch: corpus, backbones, quantizer, k-means, tokens and both stages.
# Run it from the repository's root. After an interruption, run it again to resume.
# It uses a GPU if there is one. PYTHON is the interpreter, HOURS the length of the corpus, SOUNDFONT a General MIDI
# soundfont.
set -e
PYTHON=${PYTHON:-python}
BEGIN_WITH=
OUT=results/demo_model # the configs beside this script name it too
HOURS=${HOURS:-7}
MODEL=demo/configs/model.json
TRAINING=demo/configs/training_bundle.json
TOKENIZERS="--rvq_path $OUT/clap_rvq --kmeans_path $OUT/hubert_kmeans"

# train NAME SCRIPT ARGUMENTS...: runs once; resumes from its newest checkpoint, or starts from the weights in $BEGIN_WITH
# if that is set
train() {
    name=$1
    script=$2
    shift 2
    if [ -e "$OUT/$name/done" ]; then return; fi
    if ls "$OUT/$name"/checkpoints/step_* > /dev/null 2>&1; then
        "$PYTHON" "scripts/$script.py" "$@" --results_folder "$OUT/$name" --continue_from_dir "$OUT/$name"
    else
        "$PYTHON" "scripts/$script.py" "$@" ${BEGIN_WITH:+--fine_tune_from "$BEGIN_WITH"} \
            --results_folder "$OUT/$name" --overwrite
    fi
    touch "$OUT/$name/done"
}

# backbone NAME PLACE ARGUMENTS...: trains a backbone, and writes it in half precision to PLACE in the bundle
backbone() {
    name=$1
    place=demo/bundle/$2
    shift 2
    train "$name" "train_$name" --config "demo/configs/train_$name.json" "$@"
    newest=$(find "$OUT/$name/checkpoints" -name 'step_*' | sort | tail -n 1)
    "$PYTHON" demo/halve_weights.py "$newest/$name" "$place"
}

"$PYTHON" scripts/make_demo_corpus.py --output "$OUT/corpus" --hours "$HOURS" --seed 0 ${SOUNDFONT:+--soundfont "$SOUNDFONT"}
backbone spectral_codec encodec
backbone vocos decoder --model_config "$MODEL"
backbone clap clap
newest=$(find "$OUT/clap/checkpoints" -name 'step_*' | sort | tail -n 1)
"$PYTHON" demo/train_instrument_matching.py "$newest/clap" "$OUT/clap/matching" --config demo/configs/train_clap.json \
    --model_config "$MODEL"
newest=$(find "$OUT/clap/matching" -name 'step_*' | sort | tail -n 1)
"$PYTHON" demo/halve_weights.py "$newest" demo/bundle/clap
"$PYTHON" demo/initial_mert.py onset_bank "$OUT/initial_mert" --config demo/configs/train_mert.json
backbone mert mert --model_config "$MODEL"
for name in clap_rvq hubert_kmeans; do
    if [ ! -e "$OUT/$name/done" ]; then
        "$PYTHON" "scripts/train_$name.py" --results_folder "$OUT/$name" --model_config "$MODEL" \
            --training_config "$TRAINING" --overwrite
        rm -rf "$OUT/tokens" # made with other tokenizers, if there are any
        touch "$OUT/$name/done"
    fi
done
# shellcheck disable=SC2086
"$PYTHON" scripts/preprocess_data.py --model_config "$MODEL" --training_config "$TRAINING" $TOKENIZERS
# Short windows first: at the start of a window there are no earlier tokens, so the stage must use the conditioning.
# shellcheck disable=SC2086
train semantic_short train_semantic_stage --model_config demo/configs/model_short_windows.json \
    --training_config demo/configs/training_short_windows.json $TOKENIZERS
BEGIN_WITH=$OUT/semantic_short
for name in semantic coarse; do
    # shellcheck disable=SC2086
    train "$name" "train_${name}_stage" --model_config "$MODEL" --training_config "$TRAINING" $TOKENIZERS
    BEGIN_WITH=
done
rm -rf "$OUT/bundle"
# shellcheck disable=SC2086
"$PYTHON" scripts/bundle.py --results_folder "$OUT/bundle" --model_config "$MODEL" $TOKENIZERS \
    --semantic_path "$OUT/semantic" --coarse_path "$OUT/coarse" --generation_config demo/bundle/generation_config.json
"$PYTHON" demo/halve_weights.py "$OUT/bundle" demo/bundle
