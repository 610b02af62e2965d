"""The paper's own figures."""

from shapprune_bench.tables import paper
from shapprune_bench.tables.experiments import TABLE1, TABLE2


def test_the_papers_tables_are_whole():
    assert {row for row, _ in paper.TABLE1} == set(TABLE1)
    assert {row for row, _ in paper.TABLE2} == set(TABLE2) == {row for row, _ in paper.TABLE5}
    assert len(paper.TABLE1) == 9 * 6
    assert paper.TABLE1["gtsrb-badnets", "paper"] == (96.94, 0.49)
    assert paper.TABLE2["gtsrb-trojan", "deepinspect"] == (84.43, 33.24)
    assert paper.TABLE5["cifar100-resnet34", "paper"] == (56.34, 1.21)
    for row in TABLE2:  # the paper's Table 2 has the mixture mode
        assert paper.TABLE2[row, "paper-mixture"] == paper.TABLE5[row, "paper-mixture"]
