"""Makes spiece.model.gz, tokenizer.json.gz and tokens.json.gz: a small T5 vocabulary and 1,000 texts with the numbers of their tokens.

Run with transformers, protobuf and sentencepiece: python make_tokens.py (writes beside itself). SentencePiece's own trainer makes
the model, with the rules `nmt_nfkc` that T5 has; transformers' T5Tokenizer reads it and writes tokenizer.json, and encodes
the texts with either. The two must agree here, or nothing is written. Beside them stands which texts SentencePiece itself cuts
otherwise; ../golden.rs tells why.
"""

import base64
import gzip
import io
import json
import pathlib
import random
import sys
import tempfile

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from transformers import T5Tokenizer

SEED = 20221211
TEXTS = 1000
VOCABULARY = 1000

WORDS = """the a of and to in is it that was for on are with as his they be at one have this from or had by hot word but what some we can
out other were all there when up use your how said an each she which do their time if will way about many then them write would like so
these her long make thing see him two has look more day could go come did number sound no most people my over know water than call first
who may down side been now find any new work part take get place made live where after back little only round man year came show every
good me give our under name very through just form sentence great think say help low line differ turn cause much mean before move right
boy old too same tell does set three want air well also play small end put home read hand port large spell add even land here must big
high such follow act why ask men change went light kind off need house picture try us again animal point mother world near build self
earth father head stand own page should country found answer school grow study still learn plant cover food sun four between state keep
eye never last let thought city tree cross farm hard start might story saw far sea draw left late run while press close night real life
few north open seem together next white children begin got walk example ease paper group always music those both mark often letter until
mile river car feet care second book carry took science eat room friend began idea fish mountain stop once base hear horse cut sure
watch colour face wood main enough plain girl usual young ready above ever red list though feel talk bird soon body dog family direct
pose leave song measure door product black short numeral class wind question happen complete ship area half rock order fire south problem
piece told knew pass since top whole king space heard best hour better true during hundred five remember step early hold west ground
interest reach fast verb sing listen six table travel less morning ten simple several vowel toward war lay against pattern slow centre
love person money serve appear road map rain rule govern pull cold notice voice unit power town fine certain fly fall lead cry dark
machine note wait plan figure star box noun field rest correct able pound done beauty drive stood contain front teach week final gave
green quick develop ocean warm free minute strong special mind behind clear tail produce fact street inch multiply nothing course stay
wheel full force blue object decide surface deep moon island foot system busy test record boat common gold possible plane stead dry
wonder laugh thousand ago ran check game shape equate miss brought heat snow tire bring yes distant fill east paint language among
film movie scene funny awful honest brilliant boring terrible lovely happy sad angry afraid disgust surprise joy fear neutral positive
negative um uh yeah okay really actually maybe plot actor director ending camera dialogue laughter""".split()
ENDINGS = ["", "", "", "", "s", "ed", "ing", "ly", "er", "'s", "n't", "ness"]
EUROPE = "Über straße naïve café déjà vu façade señor año Ærø Łódź Dvořák İstanbul ığdır Ελλάδα λόγος мир привет Київ война".split()
CJK = "我们喜欢这部电影但是结局很糟糕的了不在人有他大来上国个到说时要就出会也你对生能而子那得于着下自之年过发后作里用道行所然家种事"
KANA = "これはテストですカタカナひらがなをよむ한국어문장입니다ﾊﾝｶｸｶﾞｷﾞ"
ARABIC = "هذا الفيلم جميل جدا ولكن النهاية سيئة والموسيقى رائعة العَرَبِيَّة كِتَابٌ ﷺ ﻻ".split()
INDIC = "नमस्ते दुनिया क्षत्रिय हिन्दी தமிழ் ภาษาไทย สวัสดี ກໍາ བོད་ ខ្មែរ".split()
COMPATIBLE = list("ﬁﬂﬃ①⑳㍿㌔№™℃ℌ½¼²³₂ªºⅣⅷ…‥‼⁉＋ＡＢＣａｂｃ１２３！？（）㈱㎏㏒Ａ𝐀𝓑𝔠𝟘𝟙ǆĳŉſﷺﬅ﹏｡､「」゛゜ｰ⑴⒈㋀")
MARKS = ["e\u0301", "a\u0308", "o\u0302\u0301", "n\u0303", "q\u0323\u0307", "s\u0323\u0307", "\u0344", "\u0301", "Z\u0351\u032b\u0343\u0363",
         "A\u030a", "\u212b", "\u1112\u1161\u11ab", "か\u3099", "ハ\u309a", "i\u0307", "\u0958", "\u0f77", "\u1e9b\u0323", "\u0340", "ﬁ\u0301", "①\u0301"]
EMOJI = ["😀", "😂😂", "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇫🇷🇩🇪", "❤️", "☃", "🤦🏿‍♀️", "1️⃣", "🧑‍💻", "©️", "™️", "㊗️"]
SPACES = [" ", "  ", "     ", "\t", "\n", "\r\n", "\v", "\f", "\u00a0", "\u2003", "\u2009", "\u202f", "\u3000", "\u1680", "\u2028", "\u2029", "\u0085"]
HIDDEN = ["\u200b", "\u200c", "\u200d", "\u200e", "\u200f", "\ufeff", "\u00ad", "\u2060", "\u180e", "\u061c", "\u202a", "\u202c", "\ufe0f",
          "\x00", "\x01", "\x07", "\x08", "\x1b", "\x1e", "\x1f", "\x7f", "\x80", "\x9f", "\ufffc", "\ufffd", "\ue000", "\U000e0041", "\ufff9"]
SIGNS = list(".,;:!?'\"()[]{}<>@#$%^&*-_=+/\\|`~▁–—‘’“”«»•·§¶†‡€£¥©®°±×÷←→≤≠∞√∑~～〜")
SENTINELS = ["<extra_id_0>", "<extra_id_1>", "<extra_id_50>", "<extra_id_99>", "<extra_id_100>", "<extra_id_>", "</s>", "<pad>", "<unk>", "<s>",
             "<EXTRA_ID_0>", "< /s>", "<extra_id_0", "＜/s＞", "</s></s>", "<extra_id_0><extra_id_1>"]
EDGES = ["", " ", "  ", "\n", "\t\n ", "▁", "▁▁", " ▁ ", "▁the", "the▁way", "\u200b", "\x00", "\ufeff", "\u0301", "a", " a", "a ", "</s>",
         " </s> ", "<extra_id_0>", "<pad><pad>", "<unk>", "😀", "☃☃☃", "…", "ﷺ", "the" * 400, "x" * 2000, "ab " * 300, "．．．", "\u3000the\u3000"]


def word(rng):
    # Few words are frequent and most are rare, as in any text.
    stem = WORDS[min(int(rng.paretovariate(0.7)) - 1, len(WORDS) - 1)] if rng.random() < 0.6 else rng.choice(WORDS)
    made = stem + rng.choice(ENDINGS)
    return rng.choices([made, made.capitalize(), made.upper(), made.swapcase()], [20, 4, 1, 0.3])[0]


def number(rng):
    whole = rng.randrange(10 ** rng.randint(1, 9))
    return rng.choice([f"{whole}", f"{whole:,}", f"{whole / 100:.2f}", f"-{whole / 10}", f"{whole}%", f"${whole}", f"{whole}:{whole % 60:02}", f"{whole:e}"])


def plain(rng, length=None):
    words = [word(rng) if rng.random() > 0.06 else number(rng) for _ in range(length or rng.randint(2, 14))]
    words = [w + rng.choice(",;:-") if rng.random() < 0.08 else w for w in words]
    return " ".join(words).capitalize() + rng.choice([".", ".", "!", "?", "...", ""])


def random_character(rng):
    """A character of any plane; surrogates are none."""
    while True:
        code = rng.choice([rng.randrange(0x250), rng.randrange(0x3000), rng.randrange(0x10000), rng.randrange(0x110000)])
        if not 0xD800 <= code < 0xE000:
            return chr(code)


def strewn(rng, strange):
    """Words with strange things before, between, within and behind them."""
    text = ""
    for _ in range(rng.randint(2, 9)):
        made = word(rng)
        if rng.random() < 0.3:
            at = rng.randint(0, len(made))
            made = made[:at] + rng.choice(strange) + made[at:]
        text += made + rng.choice([" ", " ", rng.choice(strange), " " + rng.choice(strange) + " "])
    return text


def texts():
    rng = random.Random(SEED)
    ways = [
        lambda: plain(rng),
        lambda: plain(rng),
        lambda: f"sst2 sentence: {plain(rng)}</s>{plain(rng)}</s>{plain(rng)}",
        lambda: strewn(rng, SIGNS),
        lambda: strewn(rng, EUROPE),
        lambda: strewn(rng, COMPATIBLE),
        lambda: strewn(rng, MARKS),
        lambda: strewn(rng, EMOJI),
        lambda: strewn(rng, SPACES),
        lambda: strewn(rng, HIDDEN),
        lambda: strewn(rng, SENTINELS),
        lambda: strewn(rng, list(CJK + KANA)),
        lambda: strewn(rng, ARABIC + INDIC),
        lambda: strewn(rng, COMPATIBLE + MARKS + EMOJI + SPACES + HIDDEN + SENTINELS + SIGNS),
        lambda: rng.choice(SPACES) * rng.randint(0, 3) + plain(rng, 3) + rng.choice(SPACES) * rng.randint(1, 4),
        lambda: "".join(rng.choice(CJK) for _ in range(rng.randint(3, 30))) + rng.choice("。！？、"),
        lambda: " ".join(rng.choice(ARABIC + INDIC + EUROPE) for _ in range(rng.randint(1, 8))),
        lambda: "".join(word(rng) for _ in range(rng.randint(5, 40))),
        lambda: ",".join([rng.choice(["negative", "neutral", "positive"]), f"{rng.uniform(-3, 3):.1f}", rng.choice(["joy", "fear", "anger"])]),
        lambda: "".join(random_character(rng) for _ in range(rng.randint(1, 12))),
        lambda: "".join(rng.choice("aeot\u0301\u0308\u200d\ufe0fﬁ①か\u3099 \u00a0<>/s▁") for _ in range(rng.randint(1, 14))),
    ]
    made = list(EDGES)
    while len(made) < TEXTS:
        made.append(ways[len(made) % len(ways)]())
    return made


def train():
    rng = random.Random(SEED + 1)
    corpus = [plain(rng) for _ in range(6000)] + [strewn(rng, EUROPE) for _ in range(300)]
    corpus += ["".join(rng.choice(CJK) for _ in range(12)) for _ in range(150)] + [" ".join(ARABIC) for _ in range(20)]
    corpus += [" ".join(SIGNS)] * 20
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus), model_writer=written, model_type="unigram", vocab_size=VOCABULARY, pad_id=0, eos_id=1, unk_id=2,
        bos_id=-1, normalization_rule_name="nmt_nfkc", num_threads=1, character_coverage=0.9995, minloglevel=2,
    )
    return written.getvalue()


def write(name, content):
    # No name and no time inside: the same content gives the same file.
    path = pathlib.Path(__file__).parent / f"{name}.gz"
    path.write_bytes(gzip.compress(content, 9, mtime=0))
    print(path.name, path.stat().st_size)


def main():
    # A model that is there stays: another version of the trainer may give another one.
    kept = pathlib.Path(__file__).parent / "spiece.model.gz"
    model = gzip.decompress(kept.read_bytes()) if kept.exists() and "--train" not in sys.argv else train()
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        (pathlib.Path(first) / "spiece.model").write_bytes(model)
        slow = T5Tokenizer.from_pretrained(first)
        slow.save_pretrained(second)
        rendered = (pathlib.Path(second) / "tokenizer.json").read_bytes()
        fast = T5Tokenizer.from_pretrained(second)
    own = sentencepiece.SentencePieceProcessor(model_proto=model)
    rows, other = [], []
    for index, text in enumerate(texts()):
        ids = slow(text).input_ids
        assert fast(text).input_ids == ids, f"tokenizer.json and spiece.model differ in {text!r}"
        decoded = slow.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        rows.append([text, ids, decoded])
        if not any(token in text for token in slow.all_special_tokens) and own.encode(text) + [1] != ids:
            other.append(index)
    print(len(rows), "texts;", sum(2 in ids for _, ids, _ in rows), "with <unk>; SentencePiece itself differs in", len(other))
    if "--show" in sys.argv:
        for index in other:
            text, ids, _ = rows[index]
            print(repr(text), "\n ", slow.convert_ids_to_tokens(ids)[:-1], "\n ", own.encode(text, out_type=str))
    write("spiece.model", model)
    fixture = json.loads(rendered)
    # The same bytes twice would make the fixture twice as large; the test puts them back.
    table = sentencepiece_model_pb2.ModelProto.FromString(model).normalizer_spec.precompiled_charsmap
    assert base64.b64decode(fixture["normalizer"]["precompiled_charsmap"]) == table
    fixture["normalizer"]["precompiled_charsmap"] = ""
    write("tokenizer.json", json.dumps(fixture, ensure_ascii=False, separators=(",", ":")).encode())
    write("tokens.json", json.dumps({"rows": rows, "sentencepiece_differs": other}, ensure_ascii=False, separators=(",", ":")).encode())


if __name__ == "__main__":
    main()
