"""Keys, envelopes, records and the ledger: what is signed, and what notices that somebody changed it."""

import base64
import json
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from skewguard.errors import EvidenceError
from skewguard.findings import Finding, Kind
from skewguard.gate import Ledger, Record, read_record, sign_revocation, sign_verdict
from skewguard.gate.envelope import seal, unseal
from skewguard.gate.keys import SigningKey, Trust, load_trust, revoke_key, trust_key
from skewguard.gate.ledger import newest
from skewguard.verdict import Ruling
from tests.gate.verdicts import KEY, about, passing

NAME, MODEL = "flight-delay", "m-" + "1" * 32
GOOD = passing(NAME, MODEL, "d" * 64, "c" * 64)


@pytest.fixture
def trust(tmp_path: Path) -> Trust:
    """A trust file with the tests' key."""
    trust_key(tmp_path / "trusted.json", KEY.save(tmp_path / "signing.pem"), "tests")
    return load_trust(tmp_path / "trusted.json")


def test_a_key_is_the_same_after_it_was_saved_and_nobody_else_reads_it(tmp_path: Path) -> None:
    """The private key's file is its owner's alone, and is never overwritten."""
    key = SigningKey.new()
    key.save(tmp_path / "signing.pem")
    assert SigningKey.load(tmp_path / "signing.pem").id == key.id
    assert stat.S_IMODE((tmp_path / "signing.pem").stat().st_mode) == 0o600
    before = (tmp_path / "signing.pem").read_bytes()
    with pytest.raises(EvidenceError, match="there is a file already"):
        SigningKey.new().save(tmp_path / "signing.pem")
    assert (tmp_path / "signing.pem").read_bytes() == before


def test_what_a_trusted_key_signed_is_read(trust: Trust) -> None:
    """The payload comes back, with the id of the key."""
    assert unseal(seal(b"payload", KEY), trust) == (b"payload", KEY.id)


def test_one_changed_bit_is_noticed(trust: Trust) -> None:
    """In the payload, in its type, and in the signature."""
    envelope = json.loads(seal(b"payload", KEY))
    payload = envelope | {"payload": base64.b64encode(b"paylaod").decode()}
    signature = bytearray(base64.b64decode(envelope["signatures"][0]["sig"]))
    signature[5] ^= 1
    other = [{"keyid": KEY.id, "sig": base64.b64encode(signature).decode()}]
    for changed in (payload, envelope | {"signatures": other}):
        with pytest.raises(EvidenceError, match="changed after it was signed"):
            unseal(json.dumps(changed), trust)
    with pytest.raises(EvidenceError, match=r"expected a record of type .*, got .text/plain"):
        unseal(json.dumps(envelope | {"payloadType": "text/plain"}), trust)


def test_an_unknown_key_does_not_count(trust: Trust) -> None:
    """Whoever makes a key of his own rules on nothing."""
    with pytest.raises(EvidenceError, match=r"trusted\.json does not trust"):
        unseal(seal(b"payload", SigningKey.new()), trust)


def test_a_revoked_key_does_not_count_and_is_not_trusted_again(trust: Trust, tmp_path: Path) -> None:
    """Neither for what it signs now nor for what it signed before."""
    sealed = seal(b"payload", KEY)
    revoke_key(trust.path, KEY.id, "it was in a container image")
    with pytest.raises(EvidenceError, match=r"revoked at .*: it was in a container image"):
        unseal(sealed, load_trust(trust.path))
    with pytest.raises(EvidenceError, match="make a new one"):
        trust_key(trust.path, tmp_path / "signing.pem.pub")


def test_a_key_under_anothers_id_is_refused(trust: Trust) -> None:
    """The trust file's ids follow from the keys."""
    data = json.loads(trust.path.read_text())
    data["keys"][0]["public"] = "00" * 32
    trust.path.write_text(json.dumps(data))
    with pytest.raises(EvidenceError, match="the id is not that of the key"):
        load_trust(trust.path)


@pytest.mark.parametrize("text", ["", "PASS", "[]", "{}", "null", '{"payloadType":"x","payload":"%","signatures":[]}'])
def test_what_is_no_envelope_is_no_record(text: str, trust: Trust) -> None:
    """What cannot be read is an error, never a pass."""
    with pytest.raises(EvidenceError, match="expected a signed record"):
        read_record(text, trust)


@pytest.mark.parametrize(
    "payload", [b"", b"null", b'{"format":2}', b'{"format":2,"kind":"verdict","subject":{}}', b"\xff"]
)
def test_what_is_signed_and_no_verdict_is_no_record(payload: bytes, trust: Trust) -> None:
    """A right signature makes no verdict of something else."""
    with pytest.raises(EvidenceError, match="expected a verdict or a revocation"):
        read_record(seal(payload, KEY), trust)


def test_a_record_of_another_format_says_so(trust: Trust) -> None:
    """A newer record is not read by guesswork."""
    with pytest.raises(EvidenceError, match="expected a record of format 2, got 3"):
        read_record(seal(b'{"format":3}', KEY), trust)


def test_a_verdict_survives_its_record(trust: Trust) -> None:
    """All that admission asks for is in it, and the digest of the whole verdict."""
    finding = Finding(Kind.MISMATCH, "wind", 4, 2000, "wind: 4 of 2,000 rows")
    whole = replace(GOOD, findings=(finding,), waived=(finding,))
    text = sign_verdict(whole, KEY)
    record = read_record(text, trust)
    assert record.verdict == replace(GOOD, coverage=replace(GOOD.coverage, blind=()))
    assert whole.digest in unseal(text, trust)[0].decode()
    assert (record.model_id, record.registered_name, record.key_id) == (MODEL, NAME, KEY.id)


def test_a_record_stays_within_what_mlflow_stores(trust: Trust) -> None:
    """Reasons and builds are cut; what binds the verdict is not."""
    wordy = replace(GOOD, reasons=tuple(f"reason {i} " + '"é\n' * 400 for i in range(50)))
    wordy = replace(wordy, notes=("note " * 900,), advice="advice " * 900)
    wordy = replace(wordy, coverage=replace(wordy.coverage, truth="truth " * 900, blind=("blind " * 900,)))
    wordy = replace(wordy, subject=replace(wordy.subject, builds=tuple("x" * 400 for _ in range(200))))
    text = sign_verdict(wordy, KEY)
    assert len(text) < 5000
    back = read_record(text, trust).verdict
    assert back is not None
    assert back.reasons[0].startswith("reason 0")
    assert replace(back.subject, builds=()) == replace(GOOD.subject, builds=())
    with pytest.raises(EvidenceError, match="do not fit a tag"):
        sign_verdict(about(GOOD, registered_name="x" * 5000), KEY)


def _record(ruling: Ruling, trust: Trust) -> Record:
    verdict = replace(passing(NAME, MODEL, "d" * 64, "c" * 64), ruling=ruling)
    return read_record(sign_verdict(verdict, KEY), trust)


def test_the_newest_record_wins_in_whatever_order_they_came(trust: Trust, tmp_path: Path) -> None:
    """By the time that was signed; an old pass that is brought back does not beat a newer fail."""
    ledger = Ledger(tmp_path / "ledger.jsonl")
    old_pass, new_fail = _record(Ruling.PASS, trust), _record(Ruling.FAIL, trust)
    ledger.remember([new_fail])
    found = newest(ledger.remember([old_pass]), MODEL, NAME, trust)
    assert found is not None
    assert found.digest == new_fail.digest
    assert newest(ledger.entries(), MODEL, "other", trust) is None
    revoked = read_record(sign_revocation(MODEL, NAME, "a mistake", KEY), trust)
    found = newest(ledger.remember([revoked]), MODEL, NAME, trust)
    assert found is not None
    assert (found.verdict, found.reason) == (None, "a mistake")


def test_a_record_is_remembered_once(trust: Trust, tmp_path: Path) -> None:
    """Asking twice adds nothing."""
    ledger, record = Ledger(tmp_path / "ledger.jsonl"), _record(Ruling.PASS, trust)
    ledger.remember([record])
    assert len(ledger.remember([record])) == len(ledger.entries()) == 1


@pytest.mark.parametrize("edit", ["change", "remove", "insert", "swap", "garbage"])
def test_an_edited_ledger_is_noticed(edit: str, tmp_path: Path) -> None:
    """Whoever changes, removes, inserts or reorders a line breaks the chain, and the gate closes."""
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for number in range(4):
        ledger.append("refused", {"name": f"n{number}"})
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    if edit == "change":
        lines[1] = lines[1].replace(b"n1", b"nX")
    elif edit == "remove":
        del lines[1]
    elif edit == "insert":
        lines.insert(2, lines[1])
    elif edit == "swap":
        lines[1], lines[2] = lines[2], lines[1]
    else:
        lines[1] = b"{}\n"
    ledger.path.write_bytes(b"".join(lines))
    with pytest.raises(EvidenceError, match=r"line [23] (does not follow|is damaged)"):
        ledger.entries()
    with pytest.raises(EvidenceError, match=r"line [23] (does not follow|is damaged)"):
        ledger.append("refused", {})


def test_a_line_that_was_torn_by_a_crash_is_replaced(tmp_path: Path) -> None:
    """It was never acted upon: reading skips it, the next append takes its place."""
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append("refused", {"name": "a"})
    with ledger.path.open("ab") as file:
        file.write(b'{"seq": 1, "at"')
    assert len(ledger.entries()) == 1
    ledger.append("refused", {"name": "b"})
    assert [entry.body["name"] for entry in ledger.entries()] == ["a", "b"]


def test_processes_share_a_ledger(tmp_path: Path) -> None:
    """Several writers at once: every line is there, and the chain holds."""
    path = tmp_path / "ledger.jsonl"
    code = "import sys; from skewguard.gate import Ledger; l = Ledger(sys.argv[1]);"
    code += "[l.append('refused', {'name': sys.argv[2]}) for _ in range(20)]"
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), str(n)]) for n in range(3)]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0]
    assert len(Ledger(path).entries()) == 60
