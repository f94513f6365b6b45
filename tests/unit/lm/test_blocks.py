from tunesmith.lm.blocks import Block, blocks
from tunesmith.lm.lora import Span


def test_rows_are_cut_by_adapter_and_into_few_sizes() -> None:
    assert list(blocks(1280, ())) == [Block(0, 768, None), Block(768, 1280, None)]
    spans = (Span(3, 0, 448), Span(1, 448, 458))
    assert list(blocks(500, spans)) == [
        Block(0, 256, 3),
        Block(256, 384, 3),
        Block(384, 448, 3),
        Block(448, 458, 1),
        Block(458, 500, None),
    ]


def test_an_adapter_without_rows_owns_none() -> None:
    assert list(blocks(5, (Span(2, 0, 0), Span(1, 0, 5)))) == [Block(0, 5, 1)]
    assert list(blocks(0, ())) == []
