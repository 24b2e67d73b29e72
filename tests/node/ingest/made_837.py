"""837 interchanges that are made up: for tests, and to see how fast they are read."""

from collections.abc import Iterable

ISA = (
    "ISA*00*          *00*          *ZZ*SENDER         *ZZ*RECEIVER       "
    "*240102*0930*^*00501*000000001*0*T*:~"
)
PROFESSIONAL = "005010X222A1"
INSTITUTIONAL = "005010X223A2"


def interchange(transactions: Iterable[str], *, guide: str = PROFESSIONAL, functional: str = "HC") -> str:
    """Return an interchange of these transaction sets."""
    group = f"GS*{functional}*SENDER*RECEIVER*20240102*0930*1*X*{guide}~"
    return "".join((ISA, group, *transactions, "GE*1*1~IEA*1*000000001~"))


def transaction(*segments: str, guide: str = PROFESSIONAL, kind: str = "837") -> str:
    """Return a transaction set around segments, which are written without their terminators."""
    body = [f"ST*{kind}*0001*{guide}", "BHT*0019*00*1*20240102*0930*CH", *segments]
    return "~".join([*body, f"SE*{len(body) + 1}*0001", ""])


def billing(npi: str = "1112223338") -> tuple[str, ...]:
    """Return loop 2000A."""
    return (
        "HL*1**20*1",
        f"NM1*85*2*CLINIC*****XX*{npi}",
        "N3*1 ROAD",
        "N4*TOWN*GA*30001",
        "REF*EI*720000000",
    )


def subscriber(number: str, *, payer: str = "PAYER1", relation: str = "18") -> tuple[str, ...]:
    """Return loop 2000B."""
    return (
        "HL*2*1*22*0",
        f"SBR*P*{relation}*******CI",
        f"NM1*IL*1*FAMILY*GIVEN****MI*{number}",
        "DMG*D8*19700102*F",
        f"NM1*PR*2*INSURER*****PI*{payer}",
    )


def professional(number: str, *, lines: int = 2, frequency: str = "1") -> tuple[str, ...]:
    """Return loop 2300 and its lines: two diagnoses, one of them twice."""
    found = [
        f"CLM*{number}*{100 * lines}***11:B:{frequency}*Y*A*Y*Y",
        f"REF*D9*{number}",
        "HI*ABK:E119*ABF:I10*ABF:E119",
        "NM1*82*1*DOCTOR*D****XX*9998887776",
    ]
    for line in range(1, lines + 1):
        found += [
            f"LX*{line}",
            f"SV1*HC:9921{line % 5}:25*100*UN*1***1:2",
            f"DTP*472*D8*202401{line % 28 + 1:02d}",
        ]
    return tuple(found)


def many(claims: int, *, lines: int = 2) -> str:
    """Return an interchange of one transaction with so many claims, each of another member."""
    segments: list[str] = [*billing()]
    for claim in range(claims):
        segments += subscriber(f"M{claim:07d}")
        segments += professional(f"C{claim:07d}", lines=lines)
    return interchange([transaction(*segments)])
