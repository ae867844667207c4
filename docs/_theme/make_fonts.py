"""Make assets/fonts/guide-math.woff2, the part of TeX Gyre Termes Math that formulas need.

Not run by `make`: the result is in git. Once in a while, with fonttools and brotli
installed and the Debian package fonts-texgyre-math (20180621-6 was used) unpacked:

    python docs/_theme/make_fonts.py texgyretermes-math.otf

The subset keeps the MATH table, without which Chromium does not stretch brackets.
Its name is changed, as the licence (GUST Font License, beside it) asks of a
modified version.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTFont

TARGET = Path(__file__).parent / "assets" / "fonts" / "guide-math.woff2"
NAME = "Guide Math"
RANGES = [
    (0x20, 0x7E),
    (0x391, 0x3A1),
    (0x3A3, 0x3A9),
    (0x3B1, 0x3C9),
    (0x1D400, 0x1D467),  # bold, italic
    (0x1D6E2, 0x1D71B),  # italic Greek
    (0x1D7CE, 0x1D7D7),  # bold digits
    (0x2061, 0x2064),  # invisible operators
]
# Script and double-struck capitals, letter-like symbols, signs, arrows, relations,
# delimiters, accents, spaces.
SINGLES = (
    "𝒜ℬ𝒞𝒟ℰℱ𝒢ℋℐ𝒥𝒦ℒℳ𝒩𝒪𝒫𝒬ℛ𝒮𝒯𝒰𝒱𝒲𝒳𝒴𝒵"
    "𝔹ℂ𝔼𝔽ℕℙℚℝℤℎℓℑℜ𝟙ϵϕ𝛂𝛃𝛉𝛍𝛌𝛔𝚺"
    "±×÷·¬°′″…†‖"
    "←↑→↓↔⇐⇒⇔⟶⟹⟺↦"
    "∀∂∃∅∇∈∉∏∑−∖∗∘∙√∝∞∣∥∧∨∩∪∫∼≃≈≔≜≝≠≡≤≥≪≫≲≳≻≺⊂⊆⊕⊗⊙⊤⊥⊢⋀⋁⋂⋃⋅⋆⋮⋯⋱⨁⨂"
    "⌈⌉⌊⌋⟨⟩⟦⟧⏞⏟"
    "ˆˇ˙˜¯´¨\u0302\u0303\u0304\u0307\u20d7"
    "\u2002\u2003\u2004\u2005\u2009\u200a"
)


def _small_primes_only(font: TTFont) -> None:
    """Leave optical sizes to the primes: for letters they double the file."""
    primes = {font.getBestCmap()[ord(c)] for c in "′″"}
    for lookup in font["GSUB"].table.LookupList.Lookup:
        for table in lookup.SubTable:
            if hasattr(table, "alternates"):
                table.alternates = {
                    glyph: others
                    for glyph, others in table.alternates.items()
                    if glyph in primes
                }


def main(source: str) -> None:
    """Write the subset of the font file `source`."""
    font = TTFont(source)
    options = Options()
    options.layout_features = ["ssty"]
    options.drop_tables += ["GPOS", "GDEF", "DSIG"]
    options.hinting = False
    options.desubroutinize = True
    options.name_IDs = [0, 1, 2, 4, 6, 13, 14]
    options.notdef_outline = True
    options.glyph_names = False
    wanted = {c for first, last in RANGES for c in range(first, last + 1)}
    wanted = (wanted | set(map(ord, SINGLES))) - {0x1D455}  # ℎ stands elsewhere
    _small_primes_only(font)
    subsetter = Subsetter(options)
    subsetter.populate(unicodes=wanted)
    subsetter.subset(font)
    missing = wanted - set(font.getBestCmap())
    print("not in the font:", " ".join(map(chr, sorted(missing))) or "nothing")
    for record in font["name"].names:
        if record.nameID in (1, 4):
            record.string = NAME
        elif record.nameID == 6:
            record.string = NAME.replace(" ", "")
    assert "MATH" in font
    font.flavor = "woff2"
    font.save(TARGET)
    print(
        f"{TARGET.name}: {TARGET.stat().st_size} bytes, {len(font.getGlyphOrder())} glyphs"
    )


if __name__ == "__main__":
    main(sys.argv[1])
