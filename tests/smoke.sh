#!/bin/sh
# An installed t2i from nothing to a picture in seconds, in an empty folder: what a wheel or an sdist must do on its own.
set -eu
folder=$(mktemp -d)
cd "$folder"
python -c "import t2i, t2i._native; print(t2i.__version__, t2i.__file__)"
python -c "from t2i.bench.timing import commit; assert commit() != 'unknown', 'the package does not say its commit'"
t2i-prepare blossoms --images 150 --size 19 --out pack
t2i-train --help | head -n 3
t2i-train --data pack --out run --preset blossoms --size 16 --generator-width 8 --discriminator-width 8 \
    --batch 8 --steps 5 --device cpu --text.steps 5 --text.batch 16 --text.width 8 --text.channels 8 8 --text.dim 16
t2i-generate --model run "a flower with five red petals" --out picture.png
test -s picture.png
echo "t2i works: $folder/picture.png"
