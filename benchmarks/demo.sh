#!/bin/sh
# From nothing to pictures: simulated recordings, a model, its embedder, embeddings.
# usage: sh benchmarks/demo.sh [FOLDER]
set -eu
mkdir -p "${1:-demo}"
cd "${1:-demo}"

say() { printf '\n$ %s\n' "$*"; "$@"; }

say betman fetch_dataset SampleData
say betman train_model -v --run_id=demo --overwrite --seed=1234 \
    --task_ids=cons,order,shift,warp --data_format=movement \
    --window_size=60 --emb_dim=32 --num_layers=2 --num_heads=4 --hidden_dim=128 \
    --epochs=5 --train_sample=0.35 --dev_ratio=0.2 --dev_sample=0.3 \
    --learning_rate=1e-3 --warmup_epochs=1 --save_history datasets/SampleData
say betman export_embedder --overwrite \
    models/demo/model_config.yml models/demo/weights/weights_last.pt
say betman compute_embeddings --overwrite --data_format=movement datasets/SampleData \
    models/demo-embedder/model_config.yml models/demo-embedder/weights/weights_last.pt
say betman plot_history --overwrite models/demo
say betman plot_embeddings --overwrite --labels=datasets/SampleData embeddings

echo
echo "Held-out accuracy after the last epoch (recordings the model never saw):"
python - <<'PYTHON'
import csv

with open("models/demo/training_history.csv", newline="") as stream:
    *_, last = csv.DictReader(stream)
for task in ("cons", "order", "shift", "warp"):
    print(f"  {task:5}  {float(last[f'{task}_dev_accuracy']):.2f}")
PYTHON
echo "Pictures: $(pwd)/models/demo/training_history.png and $(pwd)/embeddings/embeddings.png"
