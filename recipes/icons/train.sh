#!/usr/bin/env bash
# Trains what the package ships for icons: the searching CLIP and a phi by each objective, and compares them on icons/val.
#
#   DTYPE=bfloat16 recipes/icons/train.sh build/icons      # as shipped: hours on one core
#   recipes/icons/train.sh build/icons                     # the same in float32
#   recipes/icons/train.sh build/smoke --smoke             # every step, tiny, in about a minute
#
# A call that was stopped is continued by the same call. The folder holds checkpoints: keep it outside of the repository.
# To ship the result: copy clip/{config.json,model.safetensors,tokenizer*,README.md,training.json} and, of the best seed,
# {lincir,pic2word}-N/{phi.safetensors,README.md,training.json} into src/cig/assets/icons/{clip,lincir,pic2word}.
set -euo pipefail
out=${1:?where to? recipes/icons/train.sh FOLDER [--smoke]}

# The CLIP's. The shipped one's is bfloat16, for a GPU or a processor that multiplies in it (AVX-512 BF16, AMX): without
# such instructions it is twenty times slower than float32, which is why it has to be asked for. The phis' is float32.
dtype=${DTYPE:-float32}
size=small plain_steps=5500 clip_steps=1500 phi_steps=600 batch=256 limit=4982 seeds="0 1 2"
if [ "${2:-}" = --smoke ]; then
    size=tiny plain_steps=20 clip_steps=5 phi_steps=10 batch=16 limit=20 seeds=0
fi

# 1. The CLIP, from nothing: 29 thousand icons in eight inks, captions made anew at every step; made-up words only at the
#    end. One thread: it shares a machine of two cores with other work, and small matrices gain little from a second.
#    (The CLIP that is shipped was made so, but for its first part some names were still read wrongly, as docs/icons.md tells.)
train_clip() { OMP_NUM_THREADS=1 cig train clip "$@" --batch-size $batch --save-every 250 --dtype $dtype; }
train_clip icons/plain --out "$out/first" --size $size --steps $plain_steps
train_clip icons/train --out "$out/clip" --start "$out/first" --steps $clip_steps --lr 4e-4 --warmup 50

# 2. phi, by captions alone (LinCIR) and by pictures alone (Pic2Word), at equal steps. The papers' dropout is for networks
#    that are many times wider. Their rate is a hundredth of this one: a text tower normalises a pseudo-word's length away,
#    and at low rates pseudo-words stay short and the loss stalls, sooner with some seeds than with others. A rise over the
#    first steps and a fall to the end make the high rate safe. The scale is the largest that the CLIP was allowed.
own() { [ "$1" = lincir ] && echo "--keywords stopwords" || echo "--scale 60 --weight-decay 0.01"; }
for seed in $seeds; do
    for objective in lincir pic2word; do
        OMP_NUM_THREADS=1 cig train phi icons/train --clip "$out/clip" --objective $objective --out "$out/$objective-$seed" \
            --steps $phi_steps --batch-size $batch --lr 1e-2 --warmup 50 --schedule cosine --dropout 0.1 $(own $objective) \
            --save-every 200 --dtype float32 --seed "$seed"
    done
done

# 3. The table: baselines and every phi.
methods=(image text sum)
for seed in $seeds; do
    for objective in lincir pic2word; do
        methods+=("$objective clip=$out/clip phi=$out/$objective-$seed/phi.safetensors")
    done
done
cig compare icons/val --limit $limit --clip "$out/clip" --methods "${methods[@]}" --branches reference-image \
    --feature-cache "$out/features" --batch-size 256 --json "$out/compare.json" --report "$out/compare.md"
