"""Made HL7 v2 messages of the size that hospitals send: a laboratory's panel, an admission."""


def oru(number: int, *, patient: int | None = None, value: float = 98.0) -> bytes:
    """Return an ORU^R01 with five results."""
    who = number % 997 if patient is None else patient
    day = 1 + number % 28
    at = f"202005{day:02d}{number % 24:02d}{number % 60:02d}00"
    tests = (("2160-0", "Creatinine", "umol/L", "49 - 92"), ("2823-3", "Potassium", "mmol/L", "3.5 - 5.3"))
    tests += (("2951-2", "Sodium", "mmol/L", "133 - 146"), ("3094-0", "Urea", "mmol/L", "2.5 - 7.8"))
    tests += (("33914-3", "eGFR", "mL/min", ">60"),)
    lines = [
        f"MSH|^~\\&|LAB|GHH|EHR|GHH|{at}+0100||ORU^R01^ORU_R01|C{number}|P|2.5.1|||||||UNICODE UTF-8",
        f"PID|1||P{who:06d}^^^GHH^MR~9{who:09d}^^^NHS^NH||Doe^Jane^Q^^Ms||19{30 + who % 70}0118|F",
        f"PV1|1|O|ED^^^GHH||||C006^Smith^Kim|||MED|||||||||V{who:06d}^^^GHH^VN|||||||||||||||||||||||||{at}",
        f"ORC|RE|O{number}|F{number}^LAB||CM||||{at}",
        f"OBR|1|O{number}|F{number}^LAB|24323-8^Panel^LN||{at}|{at}|||||||{at}||||||||{at}||CH|F",
    ]
    for at_number, (code, name, unit, limits) in enumerate(tests, 1):
        lines.append(
            f"OBX|{at_number}|NM|{code}^{name}^LN||{value + at_number:.2f}|{unit}^^UCUM|{limits}|N|||F|||{at}"
        )
    return ("\r".join(lines) + "\r").encode()
