#!/usr/bin/env bash
# SEARLE on icons, all of its stages: concepts, OTI's pseudo-words, a phi that distils them; compared with the other methods.
#
#   recipes/icons/searle.sh build/icons                    # with the CLIP that is shipped: half an hour on one core
#   recipes/icons/searle.sh build/smoke --smoke            # every step, tiny, with the CLIP that train.sh --smoke made
#
# A call that was stopped is continued by the same call. No language model is needed: phrases are captions of training icons.
set -euo pipefail
out=${1:?where to? recipes/icons/searle.sh FOLDER [--smoke]}
here=$(cd "$(dirname "$0")" && pwd)

pictures=1536 k=150 words=100 steps=600 batch=256 queries=400 size=64
if [ "${2:-}" = --smoke ]; then
    clip=$out/clip pictures=12 k=5 words=2 steps=4 batch=4 queries=12 size=6
else
    clip=$(python -c 'from cig.methods import CLIPS; print(CLIPS["icons"])')
fi

# 1. A vocabulary of what training icons show, captions about each as phrases, and each picture's most similar names.
python "$here/words.py" "$out/searle"
if [ "${2:-}" = --smoke ]; then sed -i 300q "$out/searle/vocabulary.txt"; fi  # of thousands
named=(--clip "$clip" --vocabulary "$out/searle/vocabulary.txt" --k $k)
[ -e "$out/searle/train.csv" ] || cig train concepts icons/train --limit $pictures "${named[@]}" --out "$out/searle/train.csv"
[ -e "$out/searle/val.csv" ] || cig train concepts icons/val --references --limit $queries \
    "${named[@]}" --out "$out/searle/val.csv"

# 2. A pseudo-word for each training picture and for each reference of the first queries, of fewer steps than published.
words() {
    cig train oti "$@" --clip "$clip" --phrases "$out/searle/phrases.jsonl" --steps $words --batch-size $size
}
words icons/train --limit $pictures --concepts "$out/searle/train.csv" --out "$out/searle/words"
words icons/val --references --limit $queries --concepts "$out/searle/val.csv" --out "$out/searle/references"

# 3. phi. Rate, rise and fall are those of train.sh, for its reasons; dropout too.
cig train phi icons/train --limit $pictures --objective searle --clip "$clip" --oti "$out/searle/words" \
    --concepts "$out/searle/train.csv" --phrases "$out/searle/phrases.jsonl" --out "$out/searle/phi" \
    --steps $steps --batch-size $batch --lr 1e-2 --warmup 50 --schedule cosine --dropout 0.1 --save-every 100

# 4. The table: all that reads a picture as a word.
cig compare icons/val --limit $queries --clip "$clip" --branches reference-image --batch-size 256 \
    --methods image text sum lincir/icons pic2word/icons "searle clip=$clip phi=$out/searle/phi/phi.safetensors" \
    "oti clip=$clip phi=$out/searle/references" --feature-cache "$out/features" --json "$out/searle/compare.json"
