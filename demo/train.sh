#!/bin/sh
# Trains the demo's model from nothing: corpora, backbones, quantizer, k-means, tokens, both stages, and the bundle,
# results/demo_model/bundle. Run it from the repository's root. After an interruption, run it again to resume.
# It uses a GPU if there is one. Variables:
#   PYTHON           the interpreter
#   SHARE            share of each training's steps: SHARE=0.01 HOURS=0.1 tries the whole chain in a quarter of an hour
#   HOURS            hours of music
#   SOUNDFONT        a General MIDI soundfont, else one is found
#   CLAP_SOUNDFONTS  more of them, separated by spaces: CLAP then knows other sounds of the instruments too
#   CLAP_HOURS       hours of music for CLAP from each soundfont
set -e
PYTHON=${PYTHON:-python}
SHARE=${SHARE:-1}
HOURS=${HOURS:-19}
CLAP_HOURS=${CLAP_HOURS:-$HOURS}
BEGIN_WITH=
OUT=results/demo_model # the configs name it too
CONFIGS=$OUT/model
MODEL=$CONFIGS/model.json
TRAINING=$CONFIGS/training_bundle.json
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

# newest FOLDER: the folder of its last checkpoint
newest() {
    find "$1" -name 'step_*' | sort | tail -n 1
}

# backbone NAME PLACE ARGUMENTS...: trains a backbone, and writes it in half precision where the model config has it
backbone() {
    name=$1
    place=$CONFIGS/$2
    shift 2
    train "$name" "train_$name" --config "$CONFIGS/train_$name.json" "$@"
    "$PYTHON" demo/halve_weights.py "$(newest "$OUT/$name/checkpoints")/$name" "$place"
}

# match_instruments SOURCE TARGET STEPS ARGUMENTS...: trains a CLAP further, and writes it where the model config has it
match_instruments() {
    source=$1
    target=$2
    steps=$(awk "BEGIN { print int($3 * $SHARE + 0.999) }")
    shift 3
    "$PYTHON" demo/train_instrument_matching.py "$source" "$target" --config "$CONFIGS/train_clap.json" \
        --model_config "$MODEL" --steps "$steps" "$@"
    "$PYTHON" demo/halve_weights.py "$(newest "$target")" "$CONFIGS/clap"
}

"$PYTHON" demo/training_configs.py "$CONFIGS" --share "$SHARE"
"$PYTHON" scripts/make_demo_corpus.py --output "$OUT/corpus" --hours "$HOURS" --seed 0 ${SOUNDFONT:+--soundfont "$SOUNDFONT"}
"$PYTHON" scripts/make_demo_corpus.py --output "$OUT/clap_corpus" --hours "$CLAP_HOURS" --seed 1 \
    ${SOUNDFONT:+--soundfont "$SOUNDFONT"}
seed=2
for soundfont in $CLAP_SOUNDFONTS; do
    "$PYTHON" scripts/make_demo_corpus.py --output "$OUT/clap_corpus" --hours "$CLAP_HOURS" --seed $seed --soundfont "$soundfont"
    seed=$((seed + 1))
done
backbone spectral_codec encodec
backbone vocos decoder --model_config "$MODEL"
backbone clap clap
match_instruments "$(newest "$OUT/clap/checkpoints")/clap" "$OUT/clap/matching" 2500
"$PYTHON" demo/initial_mert.py "$OUT/initial_mert" --config "$CONFIGS/train_mert.json"
backbone mert mert --model_config "$MODEL"
for name in clap_rvq hubert_kmeans; do
    if [ ! -e "$OUT/$name/done" ]; then
        "$PYTHON" "scripts/train_$name.py" --results_folder "$OUT/$name" --model_config "$MODEL" \
            --training_config "$TRAINING" --overwrite
        rm -rf "$OUT/tokens" # made with other tokenizers, if there are any
        touch "$OUT/$name/done"
    fi
done
match_instruments "$(newest "$OUT/clap/matching")" "$OUT/clap/codes" 700 --freeze_text --rvq_path "$OUT/clap_rvq"
if [ ! -e "$OUT/clap/separated.done" ]; then
    "$PYTHON" demo/separate_families.py "$(newest "$OUT/clap/codes")" "$OUT/clap/separated" --model_config "$MODEL" \
        --rvq_path "$OUT/clap_rvq" --corpus "$OUT/corpus" --steps "$(awk "BEGIN { print int(1000 * $SHARE + 0.999) }")"
    touch "$OUT/clap/separated.done"
fi
"$PYTHON" demo/halve_weights.py "$OUT/clap/separated" "$CONFIGS/clap"
# shellcheck disable=SC2086
"$PYTHON" scripts/preprocess_data.py --model_config "$MODEL" --training_config "$TRAINING" $TOKENIZERS
# Short windows first: at the start of a window there are no earlier tokens, so the stage must use the conditioning.
# shellcheck disable=SC2086
train semantic_short train_semantic_stage --model_config "$CONFIGS/model_short_windows.json" \
    --training_config "$CONFIGS/training_short_windows.json" $TOKENIZERS
BEGIN_WITH=$OUT/semantic_short
for name in semantic coarse; do
    # shellcheck disable=SC2086
    train "$name" "train_${name}_stage" --model_config "$MODEL" --training_config "$TRAINING" $TOKENIZERS
    BEGIN_WITH=
done
rm -rf "$OUT/whole_bundle"
# shellcheck disable=SC2086
"$PYTHON" scripts/bundle.py --results_folder "$OUT/whole_bundle" --model_config "$MODEL" $TOKENIZERS \
    --semantic_path "$OUT/semantic" --coarse_path "$OUT/coarse" --generation_config demo/bundle/generation_config.json
"$PYTHON" demo/halve_weights.py "$OUT/whole_bundle" "$OUT/bundle"
