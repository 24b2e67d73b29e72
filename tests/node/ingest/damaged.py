"""Files of every format but HL7 v2, and what an accident or somebody who means harm may make of them.

`seeds()` has a small good file of each format, with a word planted where names, ids and free text stand.
`damaged(seed, rng)` is one of its many bad versions; the same generator gives the same.
"""

import gzip
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from tests.node.genomes.test_genomes import HEADER
from tests.node.ingest.fhir_resources import PATIENT, concept, observation, resource
from tests.node.ingest.made_837 import billing, interchange, professional, subscriber, transaction
from tests.node.signals.made_signals import DTD, dexcom, export, fitbit_heart, hearts, libre, wfdb

WORD = "Zqxmarker"  # nobody's name; if it is seen outside the file, something leaked
_DAYS = [f"2020-0{month}-1{day}" for month in (1, 2, 3) for day in (0, 1, 2)]
MAPPING = """
[source]
name = "labs"
version = 1
files = ["labs*.csv*"]
[patient]
column = "mrn"
[person]
birth_date = { column = "dob", format = "%Y-%m-%d" }
sex = { column = "sex", map = { M = 8507, F = 8532 } }
[date]
column = "taken"
format = "%Y-%m-%d %H:%M"
[columns.name]
identifier = true
[[events]]
table = "measurement"
column = "value"
concept_id = 3004249
unit = { column = "unit", map = { "mm[Hg]" = 8876 } }
range = [0, 400]
"""


@dataclass(frozen=True)
class Seed:
    """A good file, and the files that have to lie beside it."""

    format: str
    name: str
    data: bytes
    beside: dict[str, bytes] = field(default_factory=dict)


def seeds() -> list[Seed]:
    """Return a good file of each format."""
    wave = _wave()
    found = [
        Seed("fhir", "Observation.ndjson", _ndjson()),
        Seed("fhir", "bundle.json", _bundle()),
        Seed("fhir", "Observation.ndjson.gz", gzip.compress(_ndjson(), mtime=0)),
        Seed("claims", "carrier.csv", _carrier()),
        Seed("claims", "beneficiary.csv", _beneficiary()),
        Seed("x12", "claims.x12", _x12()),
        Seed("synthea", "conditions.csv", _synthea()),
        Seed("apple-health", "export.xml", _apple()),
        Seed("apple-health", "export.zip", _zipped({"apple_health_export/export.xml": _apple()})),
        Seed("fitbit", "heart_rate-2024-03-01.json", _fitbit()),
        Seed("cgm", "dexcom.csv", dexcom([(f"2024-03-01T10:{m:02d}:00", "EGV", 90 + m) for m in range(30)])),
        Seed("cgm", "libre.csv", libre([(f"03-20-2024 10:{m:02d} AM", "0", 90 + m) for m in range(30)])),
        Seed("wfdb", "r1n.hea", wave["r1n.hea"], {"r1n.dat": wave["r1n.dat"]}),
        Seed("delimited", "labs.csv", _labs(), {"labs.toml": MAPPING.encode()}),
        Seed("delimited", "labs.csv.gz", gzip.compress(_labs(), mtime=0), {"labs.toml": MAPPING.encode()}),
        Seed("genotypes", "a.vcf", _vcf()),
        Seed("genotypes", "a.vcf.gz", gzip.compress(_vcf(), mtime=0)),
    ]
    image = _dicom()
    return [*found, Seed("dicom", "slice.dcm", image)] if image else found


def damaged(seed: Seed, rng: np.random.Generator) -> Seed:
    """Return a bad version of a file: of the bytes, of what they say, of the packing, or of the name."""
    text = seed.format not in ("dicom",) and not seed.name.endswith((".gz", ".zip"))
    ways = [*_OF_BYTES, *(_OF_TEXT if text else []), *_OF_FORMAT.get(_packing(seed), [])]
    way = ways[int(rng.integers(len(ways)))]
    data = way(seed.data, rng)
    beside = seed.beside
    if beside and rng.random() < 0.3:  # what lies beside it may be what is damaged
        name = sorted(beside)[0]
        harm = _OF_BYTES[int(rng.integers(len(_OF_BYTES)))]
        return replace(seed, beside=beside | {name: harm(beside[name], rng)})
    name = seed.name
    if rng.random() < 0.1:
        stem, dot, rest = name.partition(".")
        name = _NAMES[int(rng.integers(len(_NAMES)))].format(stem=stem) + dot + rest
    return replace(seed, name=name, data=data)


# Good files


def _ndjson() -> bytes:
    rows = [
        resource("Patient", gender="female", birthDate="1950-02-03", name=[{"family": WORD}]) | {"id": "p1"},
        *(
            observation(id=f"o{n}", effectiveDateTime=f"{day}T04:05:06-05:00", note=[{"text": WORD}])
            for n, day in enumerate(_DAYS)
        ),
        observation(id="words", valueQuantity=None, valueString=f"seen by {WORD}"),
        resource("Condition", code=concept("44054006", text=WORD), subject=PATIENT,
                 onsetDateTime="2020-01-02"),
        resource("Encounter", status="finished", subject=PATIENT, period={"start": "2020-01-02T03:00:00Z"},
                 **{"class": {"code": "AMB"}}),
    ]  # fmt: skip
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _bundle() -> bytes:
    rows = [json.loads(line) for line in _ndjson().splitlines()]
    return json.dumps({"resourceType": "Bundle", "type": "collection",
                       "entry": [{"fullUrl": f"urn:uuid:{n}", "resource": row} for n, row in enumerate(rows)]
                       }).encode()  # fmt: skip


def _carrier() -> bytes:
    head = "DESYNPUF_ID,CLM_ID,CLM_FROM_DT,CLM_THRU_DT,ICD9_DGNS_CD_1,ICD9_DGNS_CD_2,HCPCS_CD_1"
    rows = (f"{WORD}{n},88{n},200901{n + 10},200901{n + 11},25000,4019,99213" for n in range(15))
    return "\n".join([head, *rows, ""]).encode()


def _beneficiary() -> bytes:
    head = "DESYNPUF_ID,BENE_BIRTH_DT,BENE_DEATH_DT,BENE_SEX_IDENT_CD,BENE_RACE_CD,BENE_HI_CVRAGE_TOT_MONS"
    rows = (f"{WORD}{n},194{n % 10}0501,,{n % 2 + 1},1,12" for n in range(15))
    return "\n".join([head, *rows, ""]).encode()


def _x12() -> bytes:
    segments = [*billing()]
    for n in range(4):
        segments += [part.replace("FAMILY", WORD.upper()) for part in subscriber(f"M{n}")]
        segments += professional(f"C{n}")
    return interchange([transaction(*segments)]).encode()


def _synthea() -> bytes:
    rows = (f"{day},,{WORD}{n},e{n},44054006,{WORD} has it" for n, day in enumerate(_DAYS))
    return "\n".join(["START,STOP,PATIENT,ENCOUNTER,CODE,DESCRIPTION", *rows, ""]).encode()


def _apple() -> bytes:
    made = export(*hearts("2024-03-01", [(f"10:{m:02d}:00", 60 + m) for m in range(20)]))
    return made.replace(b"Annas iPhone", WORD.encode())


def _fitbit() -> bytes:
    return fitbit_heart([(f"03/01/24 10:{m:02d}:00", 60 + m, 2) for m in range(30)])


def _labs() -> bytes:
    rows = (
        f"{WORD}-{n},{WORD},1960-01-0{n % 9 + 1},F,{day} 10:00,120.5,mm[Hg]" for n, day in enumerate(_DAYS)
    )
    return "\n".join(["mrn,name,dob,sex,taken,value,unit", *rows, ""]).encode()


def _vcf() -> bytes:
    head = "\t".join(("#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", WORD, "M2"))
    rows = (f"chr1\t{n}00\trs{n}\tA\tG\t50\tPASS\t.\tGT\t0/1\t1|1" for n in range(1, 20))
    return "\n".join([*HEADER, head, *rows, ""]).encode()


def _wave() -> dict[str, bytes]:
    with TemporaryDirectory() as made:
        wfdb(Path(made), [[600 + n, 950] for n in range(40)], ["HR", "SpO2"])
        return {name: (Path(made) / name).read_bytes() for name in ("r1n.hea", "r1n.dat")}


def _dicom() -> bytes | None:
    try:
        from tests.node.ingest.test_dicom import image
    except BaseException as error:  # pytest's skip is no Exception
        if type(error).__name__ != "Skipped":
            raise
        return None
    made = image(PatientName=WORD, SeriesDescription=WORD)
    out = io.BytesIO()
    made.save_as(out, enforce_file_format=True)
    return out.getvalue()


def _zipped(members: dict[str, bytes], **how: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", how.get("method", zipfile.ZIP_DEFLATED)) as packed:
        for name, data in members.items():
            packed.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


# Harm

Harm = Callable[[bytes, np.random.Generator], bytes]


def _at(data: bytes, rng: np.random.Generator) -> int:
    return int(rng.integers(0, max(len(data), 1)))


def _span(data: bytes, rng: np.random.Generator, longest: int = 400) -> tuple[int, int]:
    first = _at(data, rng)
    return first, min(len(data), first + int(rng.integers(1, longest)))


def _cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: _at(data, rng)]


def _flip(data: bytes, rng: np.random.Generator) -> bytes:
    made = bytearray(data)
    for place in rng.integers(0, max(len(made), 1), int(rng.integers(1, 30))).tolist():
        if made:
            made[place] ^= 1 << int(rng.integers(8))
    return bytes(made)


def _noise(data: bytes, rng: np.random.Generator) -> bytes:
    first, last = _span(data, rng)
    return data[:first] + rng.integers(0, 256, last - first, dtype=np.uint8).tobytes() + data[last:]


def _drop(data: bytes, rng: np.random.Generator) -> bytes:
    first, last = _span(data, rng)
    return data[:first] + data[last:]


def _double(data: bytes, rng: np.random.Generator) -> bytes:
    first, last = _span(data, rng)
    return data[:last] + data[first:last] * int(rng.integers(1, 5)) + data[last:]


def _nuls(data: bytes, rng: np.random.Generator) -> bytes:
    at = _at(data, rng)
    return data[:at] + b"\x00" * int(rng.integers(1, 50)) + data[at:]


def _swap(data: bytes, rng: np.random.Generator) -> bytes:
    first, last = _span(data, rng)
    return data[last:] + data[first:last] + data[:first]


def _empty(data: bytes, rng: np.random.Generator) -> bytes:
    return (b"", b"\n", b"\x00" * 4096, b"\xef\xbb\xbf", b"\xff\xfe")[int(rng.integers(5))]


_OF_BYTES: list[Harm] = [_cut, _flip, _noise, _drop, _double, _nuls, _swap, _empty]


def _replaced(old: bytes, choices: list[bytes]) -> Harm:
    def harm(data: bytes, rng: np.random.Generator) -> bytes:
        new = choices[int(rng.integers(len(choices)))]
        parts = data.split(old)
        if len(parts) < 2:
            return data + new
        at = int(rng.integers(1, len(parts)))
        return old.join(parts[:at]) + new + old.join(parts[at:])

    return harm


def _digits(data: bytes, rng: np.random.Generator) -> bytes:
    """A number that no column holds."""
    places = [n for n, byte in enumerate(data) if 48 <= byte <= 57]
    if not places:
        return data
    at = places[int(rng.integers(len(places)))]
    huge = (
        b"9" * 400,
        b"1e999",
        b"-1",
        b"NaN",
        b"0x41",
        b"1_0",
        b"9" * 19,
        b"-9223372036854775809",
        b"1e-400",
    )
    return data[:at] + huge[int(rng.integers(len(huge)))] + data[at + 1 :]


def _encoded(data: bytes, rng: np.random.Generator) -> bytes:
    text = data.decode("utf-8", errors="replace")
    ways = ("utf-16", "utf-32", "utf-7", "cp037", "utf-8-sig")
    return text.encode(ways[int(rng.integers(len(ways)))], errors="replace")


def _long_line(data: bytes, rng: np.random.Generator) -> bytes:
    at = _at(data, rng)
    return data[:at] + WORD.encode() * 300_000 + data[at:]


def _ends(data: bytes, rng: np.random.Generator) -> bytes:
    return data.replace(b"\n", (b"\r", b"\r\n", b"\n\n", b" ", b"\x85", b"\x0b")[int(rng.integers(6))])


_DATES = [b"0000-00-00", b"9999-12-31", b"-0001-01-01", b"2020-02-30", b"99999-01-01", WORD.encode(), b"1e5"]
_SIGNS = [
    b'"',
    b"''",
    b"\\",
    b"<",
    b"&",
    b"]]>",
    b"\x1b[31m",
    b"%s%n",
    b"${x}",
    b"=cmd|' /C'!A0",
    "\u202e".encode(),
]
_OF_TEXT: list[Harm] = [
    _digits, _encoded, _long_line, _ends, _replaced(b"2020-0", _DATES), _replaced(b"2024-0", _DATES),
    _replaced(b",", [b",,", b";", b'","', b"\t", b""]), _replaced(b"\n", _SIGNS), _replaced(b":", _SIGNS),
]  # fmt: skip


def _nested(data: bytes, rng: np.random.Generator) -> bytes:
    depth = int(rng.integers(1000, 60_000))
    deep = (b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth, b"[" * depth)[
        int(rng.integers(3))
    ]
    return _replaced(b'": ', [b'": ' + deep + b', "x": '])(data, rng)


def _retyped(data: bytes, rng: np.random.Generator) -> bytes:
    """A value of another type than the format's."""
    values = [b"null", b"[]", b"{}", b"true", b"-1", b'""', b'["' + WORD.encode() + b'"]', b"1e400"]
    return _replaced(b'": "', [b'": ' + value + b', "x": "' for value in values])(data, rng)


def _entities(data: bytes, rng: np.random.Generator) -> bytes:
    bomb = b"".join(
        b'<!ENTITY l%d "%s">' % (n, b"&l%d;" % (n - 1) * 10 if n else WORD.encode()) for n in range(12)
    )
    doctypes = (
        b"<!DOCTYPE HealthData [" + bomb + b"]>",
        b'<!DOCTYPE HealthData [<!ENTITY l11 SYSTEM "file:///etc/passwd">]>',
        b'<!DOCTYPE HealthData [<!ENTITY % p SYSTEM "http://127.0.0.1:9/x.dtd"> %p;]>',
        b'<!DOCTYPE HealthData SYSTEM "http://127.0.0.1:9/x.dtd">',
    )
    made = data.replace(DTD.encode(), doctypes[int(rng.integers(4))] + b"\n")
    return made.replace(b"<HealthData locale", b"<HealthData a='&l11;' locale").replace(
        b"</HealthData>", b"&l11;</HealthData>"
    )


def _tags(data: bytes, rng: np.random.Generator) -> bytes:
    at = data.find(b"<Record") + 1
    return data[: at - 1] + b"<Record>" * int(rng.integers(1000, 50_000)) + data[at - 1 :]


def _bomb(data: bytes, rng: np.random.Generator) -> bytes:
    """Sixty megabytes of nothing in sixty kilobytes."""
    inner = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else b""
    return gzip.compress(inner + (b"\x00", b" ", b"[")[int(rng.integers(3))] * 60_000_000, 6, mtime=0)


def _inside(harm: Harm) -> Harm:
    return lambda data, rng: gzip.compress(harm(gzip.decompress(data), rng), mtime=0)


def _tail(data: bytes, rng: np.random.Generator) -> bytes:
    return (data + data, data + b"trailing", data + gzip.compress(b"\x00" * 100, mtime=0))[
        int(rng.integers(3))
    ]


def _members(data: bytes, rng: np.random.Generator) -> bytes:
    inner = _apple()
    ways = (
        {"../../../../tmp/export.xml": inner},
        {"/etc/export.xml": inner},
        {"a/export.xml": inner, "b/export.xml": inner},
        {"apple_health_export/export.xml": b"<HealthData>" + b" " * 60_000_000 + b"</HealthData>"},
        {"apple_health_export/export.xml": _entities(inner, rng)},
        {"apple_health_export/export.xml": _flip(inner, rng)},
        {f"{n}/export.xml": b"" for n in range(3000)},
        {"C:\\export.xml": inner, "export.xml\x00.txt": inner},
        {"apple_health_export/export.xml": _cut(inner, rng)},
    )
    return _zipped(ways[int(rng.integers(len(ways)))])


_OF_FORMAT: dict[str, list[Harm]] = {
    "json": [_nested, _retyped, _retyped, _retyped],
    "xml": [_entities, _entities, _tags],
    "gzip": [_bomb, _tail, *(_inside(harm) for harm in (*_OF_BYTES, *_OF_TEXT))],
    "zip": [_members, _members, _members],
}
_NAMES = [
    "-rf {stem}", "{stem} \u202e", "..{stem}", "{stem}\n\x1b[31m", "{stem}" + "x" * 200, "{stem}%2e%2e%2f",
    "' OR 1=1 {stem}", "{stem};ls", "CON {stem}",
]  # fmt: skip


def _packing(seed: Seed) -> str:
    if seed.name.endswith(".gz"):
        return "gzip"
    if seed.name.endswith(".zip"):
        return "zip"
    return {"xml": "xml", "json": "json", "ndjson": "json"}.get(seed.name.rpartition(".")[2], "")
