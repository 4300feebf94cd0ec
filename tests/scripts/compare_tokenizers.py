#!/usr/bin/env python3
"""Holds the program's tokenizers to the `tokenizers` package (0.23.3 when the golden files were made).

  compare_tokenizers.py golden DIR                     writes DIR/<kind>.json (tokenizers) and DIR/cases.json (texts, ids)
  compare_tokenizers.py live PROGRAM TEXT [FOLDER]...  compares `PROGRAM TOKENIZER < text` (build/tests/tokenize) over the text,
                                                       every source file below the folders and all planes of Unicode
  compare_tokenizers.py read TOKENIZER PROGRAM TEXT    the same for a tokenizer.json of yours, also decoding

Needs: pip install tokenizers
"""
import json, os, random, subprocess, sys, tempfile, unicodedata
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers)

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
TRAINING = ["To be, or not to be: that is the question.\n\tif (x == 12345) return don't;\n", "Größe Łódź 日本語 日本 Привет мир 🙂🙂\n",
            "    def f(self, x):\n        return self.x + 2024  # they're\n\n\n", "naïve café CAFÉ'S It'll we've\r\n"] * 3


def byte_level(**options):
    tokenizer = Tokenizer(models.BPE(**options))
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def train(tokenizer, size, **options):
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
                                  if options.pop("bytes", True) else [], **options)
    tokenizer.train_from_iterator(TRAINING, trainer)
    return tokenizer


def gpt2():
    t = byte_level()
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    return train(t, 400, special_tokens=["<|endoftext|>"])


def neox():
    t = byte_level()
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True)
    train(t, 360, special_tokens=["<|endoftext|>", "<|padding|>"])
    t.add_tokens([AddedToken(" " * n, normalized=True) for n in range(24, 1, -1)])
    t.add_tokens([AddedToken("caf\u00e9", normalized=True), AddedToken("self", single_word=True, normalized=True)])
    return t


def llama3():
    t = byte_level()
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
                                               pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    train(t, 400)
    t.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"])
    begin = t.token_to_id("<|begin_of_text|>")
    t.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(
        single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A $B", special_tokens=[("<|begin_of_text|>", begin)])])
    text = json.loads(t.to_str())
    text["model"]["ignore_merges"] = True
    text["model"]["merges"] = [m for m in text["model"]["merges"] if m != ["Ġ", "t"]]  # a word that only the vocabulary makes
    return Tokenizer.from_str(json.dumps(text))


def digits():
    t = byte_level()
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                               pre_tokenizers.Split("q", "merged_with_next"),
                                               pre_tokenizers.Split(Regex(r"[aeiou]+"), "contiguous", invert=True),
                                               pre_tokenizers.ByteLevel(add_prefix_space=True)])
    train(t, 330)
    t.add_special_tokens([AddedToken("<mask>", lstrip=True), AddedToken("<sep>", rstrip=True), AddedToken("<se")])
    return t


def llama2():
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    t.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    train(t, 500, bytes=False, special_tokens=["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)])
    text = json.loads(t.to_str())
    text["pre_tokenizer"] = None
    text["added_tokens"] = text["added_tokens"][:3]
    return Tokenizer.from_str(json.dumps(text))


def unknown():
    t = Tokenizer(models.BPE(unk_token="[UNK]", fuse_unk=True))
    t.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s+"), "removed")
    t.normalizer = normalizers.NFKD()
    t.decoder = decoders.Fuse()
    return train(t, 150, bytes=False, special_tokens=["[UNK]"])


def metaspace(scheme="always", split=True):
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=True)
    t.decoder = decoders.Metaspace(prepend_scheme=scheme) if split else decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    train(t, 500, bytes=False, special_tokens=["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)])
    text = json.loads(t.to_str())
    text["pre_tokenizer"]["split"] = split
    text["added_tokens"] = text["added_tokens"][:3]
    text["post_processor"] = {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1], "trim_offsets": True, "add_prefix_space": False}
    return Tokenizer.from_str(json.dumps(text))


KINDS = dict(gpt2=gpt2, neox=neox, llama3=llama3, digits=digits, llama2=llama2, unknown=unknown, metaspace=metaspace, mistral=lambda: metaspace("first", False))
# Where Unicode's newer versions put characters: libraries differ in the version they know.
FIXED = ["", " ", "a", "\n\n\n  x", "It's 'TWAS we'LL don'T 'ſ", "<|endoftext|>x<|endoftext|> <|padding|>", "x <mask>  y <sep>  z<mask><sep>",
         "self.self myself self", "    \t  indented    by 4\n", "2024 1234567 ١٢٣ ½", "e\u0301 \u1100\u1161\u11a8 ﬁ Ａ cafe\u0301 café \u212b",
         "a\u180eb\u200bc\u00a0d\u2028e\u3000f\x1cg\x85h", "<|begin_of_text|>Hi<|eot_id|>\n", "🙂🙂👩‍👩‍👧 🏴󠁧󠁢󠁥󠁮󠁧󠁿", "x" * 300, " " * 100 + "y",
         "\x00\x01 \x7f", "quick queue\tq", "<s>▁a ▁ </s>", "The quick brown fox.\r\n\r\nJumps!!! ?! ...\n", "\ufeffbom", "q<sep> <se <se p>"]


def planes(seed, n, length, known):
    rng = random.Random(seed)
    texts = []
    for _ in range(n):
        text = ""
        while len(text) < length:
            c = rng.choice([rng.randrange(0x80), rng.randrange(0x800), rng.randrange(0x10000), rng.randrange(0x110000)])
            if 0xD800 <= c < 0xE000 or (known and unicodedata.category(chr(c)) in ("Cn",)):
                continue
            text += chr(c) + rng.choice(["", "", " ", "  ", "\n", "a", "é", "1"])
        texts.append(text)
    return texts


def golden(folder):
    os.makedirs(folder, exist_ok=True)
    texts = FIXED + TRAINING[:4] + planes(7, 12, 60, known=True)
    cases = {"texts": texts, "ids": {}, "special": {}, "decoded": {}}
    for name, make in KINDS.items():
        t = make()
        text = json.loads(t.to_str())
        if name in ("gpt2", "digits"):  # the older way to write pairs
            text["model"]["merges"] = [" ".join(pair) for pair in text["model"]["merges"]]
        json.dump(text, open(f"{folder}/{name}.json", "w"), ensure_ascii=False, separators=(",", ":"))
        t = Tokenizer.from_str(json.dumps(text))
        ids = [t.encode(x, add_special_tokens=False).ids for x in texts]
        cases["ids"][name] = ids
        cases["special"][name] = [t.encode(x, add_special_tokens=True).ids for x in texts[:8]]
        cases["decoded"][name] = [t.decode(i, skip_special_tokens=False) for i in ids]
        if name == "neox":  # the package reads an added token's é as GPT-2's sign for the byte 0xE9
            cases["decoded"][name] = [d.replace("caf\ufffd", "café") for d in cases["decoded"][name]]
        cases["decoded"][name] = [None if d == x else d for d, x in zip(cases["decoded"][name], texts)]
    json.dump(cases, open(f"{folder}/cases.json", "w"), ensure_ascii=False, separators=(",", ":"))


def ours(program, path, text):
    done = subprocess.run([program, path], input=text.encode(), capture_output=True)
    if done.returncode:
        return done.stderr.decode().strip()
    raw = done.stdout
    return [int.from_bytes(raw[i:i + 4], "little") for i in range(0, len(raw), 4)]


def compare(name, tokenizer, path, program, texts):
    bad = 0
    if name == "unknown":  # its NFKD is Unicode 12's there: skip what is newer
        texts = [(w, x) for w, x in texts if tokenizer.normalizer.normalize_str(x) == unicodedata.normalize("NFKD", x)]
    for where, text in texts:
        theirs, mine = tokenizer.encode(text, add_special_tokens=False).ids, ours(program, path, text)
        if mine == theirs:
            continue
        bad += 1
        if isinstance(mine, str):
            print(f"{name}: {where}: {mine}")
            continue
        at = next((i for i, (a, b) in enumerate(zip(mine, theirs)) if a != b), min(len(mine), len(theirs)))
        near = tokenizer.decode(theirs[max(0, at - 3):at + 4], skip_special_tokens=False)
        print(f"{name}: {where}: token {at} of {len(theirs)}: found {mine[at:at + 3]}, expected {theirs[at:at + 3]}, near {ascii(near)}")
    print(f"{name}: {len(texts)} texts, {bad} differ")
    return bad


def sources(folders):
    for folder in folders:
        for root, dirs, files in os.walk(folder):
            dirs[:] = sorted(d for d in dirs if not d.startswith((".", "build")))
            for file in sorted(files):
                if file.endswith((".c", ".h", ".cu", ".py", ".md", ".sh", ".yaml", ".def", ".txt")):
                    yield os.path.join(root, file)


def live(program, text_path, folders):
    texts = [(f"case {i}", t) for i, t in enumerate(FIXED)]
    texts.append((text_path, open(text_path, encoding="utf-8", newline="").read()))
    everything = "".join(open(f, encoding="utf-8", newline="").read() for f in sources(folders))
    texts.append(("sources", everything))
    texts += [(f"planes {i}", t) for i, t in enumerate(planes(11, 200, 400, known=True))]
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, make in KINDS.items():
            path = f"{folder}/{name}.json"
            make().save(path)
            bad += compare(name, Tokenizer.from_file(path), path, program, texts)
        bigger = gpt2()
        trainer = trainers.BpeTrainer(vocab_size=8000, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
        bigger.train_from_iterator([texts[len(FIXED)][1], everything], trainer)
        for name, pre in (("gpt2 8000", gpt2().pre_tokenizer), ("llama3 8000", llama3().pre_tokenizer)):
            bigger.pre_tokenizer = pre
            path = f"{folder}/big.json"
            bigger.save(path)
            bad += compare(name, bigger, path, program, texts)
    return bad


def main():
    command, args = sys.argv[1], sys.argv[2:]
    if command == "golden":
        golden(args[0])
    elif command == "live":
        sys.exit(live(args[0], args[1], args[2:]) > 0)
    else:
        t = Tokenizer.from_file(args[0])
        text = open(args[2], encoding="utf-8", newline="").read()
        sys.exit(compare(args[0], t, args[0], args[1], [(args[2], text)] + [("planes", p) for p in planes(3, 50, 400, True)]) > 0)


main()
