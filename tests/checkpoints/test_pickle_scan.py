"""The machine reads what pickle reads."""

import pickle
from io import BytesIO

import pytest

from shapprune.checkpoints.pickle_scan import Call, Global, read_pickle


@pytest.mark.parametrize("text", ["7", "-7", "0x10", "-0x10", "010", "0", "00", "01", "+5"])
@pytest.mark.parametrize("opcode", ["I", "L"])
def test_numbers_in_text_are_read_as_pickle_reads_them(opcode, text):
    code = f"{opcode}{text}{'L' if opcode == 'L' else ''}\n.".encode()
    try:
        expected = pickle.loads(code)
    except ValueError:
        pytest.skip("pickle refuses it")
    read = read_pickle(BytesIO(code))
    assert read.value == expected
    assert read.fault is None


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_come_through(protocol):
    text = b"y" if protocol > 2 else "y"  # before, bytes are a call
    value = {"a": [1, -2, 3.5, None, True], "b": ("x", text, 1 << 70), 3: {"é": {}}}
    read = read_pickle(BytesIO(pickle.dumps(value, protocol)))
    assert read.value == value
    assert read.fault is None


@pytest.mark.parametrize("protocol", range(3))
def test_bytes_are_a_call_in_old_pickles(protocol):
    read = read_pickle(BytesIO(pickle.dumps(b"y", protocol)))
    assert isinstance(read.value, Call)
    assert read.globals == ("_codecs.encode",)
    assert read.fault is None


def test_calls_and_states_are_noted_in_order():
    code = b"\x80\x02ca\nb\n)R}X\x01\x00\x00\x00kK\x01sbcc\nd\n)R\x86."
    read = read_pickle(BytesIO(code))
    assert read.globals == ("a.b", "c.d")
    assert [call.function for call in read.calls] == [Global("a.b"), Global("c.d")]
    assert read.builds == ((read.calls[0], {"k": 1}),)
    assert isinstance(read.value, tuple)
    assert all(isinstance(call, Call) for call in read.value)


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        (b"N0N0N0.", "more than 4 opcodes"),
        (b"}(K\x01NK\x01Nu.", "a key twice"),
        (b"}]N\x86.", "nothing"),
        (b"}]Ns.", "a list as a key"),
        (b"\x80\x02", "the end before STOP"),
        (b"\xff", "no opcode"),
    ],
)
def test_faults_are_told(code, fault):
    told = read_pickle(BytesIO(code), most=4 if "opcodes" in fault else 100).fault
    assert (told is None) if fault == "nothing" else (fault in told)
