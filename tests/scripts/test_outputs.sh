#!/usr/bin/env bash
# A place that cannot be written is refused before the work that would fill it: before what is read is looked at.
source "$(dirname "$0")/common.sh"

refused_before_work() { # CODE PHRASE COMMAND...
  refused "$@"
  [ ! -s out.txt ] || fail "told something before it refused: $(cat out.txt)"
}
"$aspis" train small.yaml --quiet --out lm --set train.steps=5 >/dev/null
mkdir folder
mkfifo pipe
echo "a file" >file

# Every kind of place, through the command that tells most before it writes.
for place in 'nowhere/s.h5' 'file/s.h5' folder pipe; do
  refused_before_work 3 "$place: cannot write" "$aspis" generate lm --prompt "the" --max-tokens 5 --state-out "$place"
done
[ -p pipe ] || fail "the pipe was replaced"

# Every command that writes: the model or text that it is given is not even there.
refused_before_work 3 'nowhere/f.csv: cannot write' "$aspis" forecast absent --input absent.csv --out nowhere/f.csv
refused_before_work 3 'nowhere/o.h5: cannot write' "$aspis" score absent --tokens absent.h5 --out nowhere/o.h5
refused_before_work 3 'nowhere/s.h5: cannot write' "$aspis" score absent --tokens absent.h5 --out o.h5 --state-out nowhere/s.h5
refused_before_work 3 'nowhere/r.html: cannot write' "$aspis" report absent --out nowhere/r.html
refused_before_work 4 'nowhere/w.h5: cannot write' "$aspis" convert absent nowhere/w.h5
refused_before_work 4 'nowhere/w: cannot write' "$aspis" convert absent nowhere/w/
refused_before_work 4 'file: cannot write: found a file' "$aspis" convert absent file
refused_before_work 2 'lm.h5: is there already' bash -c "touch lm.h5 && '$aspis' convert absent lm.h5"
refused_before_work 3 'nowhere/t.json: cannot write' "$aspis" prepare absent.txt --train-bpe 300 --out nowhere/t.json
refused_before_work 3 'nowhere/shards: cannot write' "$aspis" prepare absent.txt --train-bpe 300 --out nowhere/shards
refused_before_work 2 '--out: found nothing' "$aspis" prepare absent.txt --train-bpe 300
refused_before_work 3 'file: cannot write: found a file' "$aspis" prepare absent.txt --out file
refused_before_work 3 'file/run: cannot make' "$aspis" train small.yaml --quiet --out file/run
[ -z "$(find . -name '*.tmp-*')" ] && [ "$(cat file)" = "a file" ] || fail "something was left: $(find . -name '*.tmp-*')"

# What could not be begun leaves no folder. The limit on file size stands in for a full disk.
for make in "convert lm weights" "prepare text.txt --out shards"; do
  code=0
  (ulimit -f 0 && "$aspis" $make >/dev/null 2>err.txt) || code=$?
  [ $code = 3 ] || [ $code = 4 ] || fail "$make without room: exit $code: $(cat err.txt)"
done
[ ! -e weights ] && [ ! -e shards ] || fail "a folder was left: $(ls -d weights shards)"

# A link stays, and what is behind it is replaced.
ln -s folder/real.h5 link.h5
touch folder/real.h5
"$aspis" generate lm --prompt "the" --max-tokens 1 --state-out link.h5 >/dev/null
[ -L link.h5 ] && [ -s folder/real.h5 ] || fail "a link was replaced: $(ls -l link.h5 folder)"
echo "ok: outputs"
