#!/usr/bin/env bash
# Trains a generator of pseudo-targets for icons: a larger composing CLIP with its phi, a VAE, a UNet of SDXL's kind.
#
#   recipes/icons/generator.sh build/icons                 # after recipes/icons/train.sh build/icons; wants a GPU
#   recipes/icons/generator.sh build/smoke --smoke         # every step, tiny
#
# A call that was stopped is continued by the same call. The folder holds checkpoints: keep it outside of the repository.
set -euo pipefail
out=${1:?where to? recipes/icons/generator.sh FOLDER [--smoke]}

dtype=${DTYPE:-float32}
layers=8 vae=small unet=small plain=1500 words=500 phi=600 vae_steps=1200 first=4000 steps=35800 more=500 batch=256 scenes=128
ema=0.998
limit=() triplets=(--limit 32768)
if [ "${2:-}" = --smoke ]; then
    layers=2 vae=tiny unet=tiny plain=4 words=2 phi=3 vae_steps=3 first=3 steps=4 more=2 batch=8 scenes=8
    ema=0.5
    limit=(--limit 24) triplets=(--limit 24)
fi
trained() { cig train "$@" --save-every 50 --dtype "$dtype"; }

# 1. The CLIP that plays bigG's part: the small one with twice its layers, trained on from there.
trained clip icons/plain --out "$out/large-first" --start "$out/clip" --layers $layers --steps $plain --batch-size $batch \
    --lr 6e-4 --warmup 100
trained clip icons/train --out "$out/large" --start "$out/large-first" --steps $words --batch-size $batch --lr 3e-4 --warmup 50
trained phi icons/train --clip "$out/large" --objective pic2word --out "$out/large-phi" --steps $phi --batch-size $batch \
    --lr 1e-2 --warmup 50 --schedule cosine --dropout 0.1 --weight-decay 0.01 --scale 60

# 2. What draws. It sees no triplets: first it is asked for a drawing from a view of itself, then from an altered one, which
#    it is shown from then on. The shipped one saw icons/altered in six calls, between which that was mended (its card):
#    as many steps in one call were not tried.
composed=(--clip "$out/clip" --phi "$out/pic2word-0/phi.safetensors" --clip2 "$out/large" --phi2 "$out/large-phi/phi.safetensors")
trained vae icons/train --out "$out/vae" --size $vae --steps $vae_steps --batch-size 32
drawing=("${composed[@]}" --vae "$out/vae" --prediction v --batch-size $scenes)
trained generator icons/train "${limit[@]}" "${drawing[@]}" --out "$out/generator-first" --size $unet --steps $first --lr 6e-4 \
    --ema $ema
trained generator icons/altered "${limit[@]}" "${drawing[@]}" --out "$out/generator" --start "$out/generator-first" \
    --show-reference --condition-dropout 0.05 --steps $steps --lr 6e-4 --ema $ema

# 3. For the experiment alone: the same, trained on with triplets.
trained generator icons/triplets "${triplets[@]}" "${drawing[@]}" --out "$out/triplets" --start "$out/generator" \
    --steps $more --lr 3e-4 --ema $ema
