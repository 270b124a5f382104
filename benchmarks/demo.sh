#!/bin/sh
# From nothing to pictures: simulated recordings, a model, its embedder, embeddings.
# usage: sh benchmarks/demo.sh [FOLDER]
set -eu
mkdir -p "${1:-demo}"
cd "${1:-demo}"

say() { printf '\n$ %s\n' "$*"; "$@"; }

say betman fetch_dataset SampleData
say betman train_model -v --preset=social --run_id=demo --overwrite --seed=1234 --data_format=movement \
    --epochs=4 --train_sample=0.35 --dev_ratio=0.2 --dev_sample=0.3 --save_history datasets/SampleData
say betman export_embedder --overwrite \
    models/demo
say betman compute_embeddings --overwrite --data_format=movement datasets/SampleData models/demo-embedder
say betman plot_history --overwrite models/demo
say betman plot_embeddings --overwrite --labels=datasets/SampleData embeddings
say betman plot_ethogram --overwrite --labels=datasets/SampleData --recordings=simulated00,simulated01

echo
echo "Pictures in $(pwd):"
echo "  models/demo/training_history.png, embeddings/embeddings.png, ethograms/"
