"""What is read from a compiler's text; snippets are shortened from what libtpu 0.0.52 writes."""

import pytest

from benchmarks.hlo import Collective, Hlo

LOOPS = """\
HloModule jit__lambda, is_scheduled=true, replica_count=1, num_partitions=16

%add.1 (a: f32[], b: f32[]) -> f32[] {
  %a = f32[]{:T(128)} parameter(0)
  %b = f32[]{:T(128)} parameter(1)
  ROOT %sum = f32[]{:T(128)} add(%a, %b)
}

%condition.1 (p.1: (s32[], f32[4,64])) -> pred[] {
  %limit = s32[]{:T(128)} constant(19)
  %p.1 = (s32[]{:T(128)}, f32[4,64]{1,0:T(4,128)}) parameter(0)
  %i.1 = s32[]{:T(128)} get-tuple-element(%p.1), index=0
  ROOT %lt.1 = pred[]{:T(512)} compare(%i.1, %limit), direction=LT
}

%body.1 (p.2: (s32[], f32[4,64])) -> (s32[], f32[4,64]) {
  %p.2 = (s32[]{:T(128)}, f32[4,64]{1,0:T(4,128)}) parameter(0)
  %i.2 = s32[]{:T(128)} get-tuple-element(%p.2), index=0
  %x.2 = f32[4,64]{1,0:T(4,128)} get-tuple-element(%p.2), index=1
  %all-gather.1 = f32[8,64]{1,0:T(8,128)S(1)} all-gather(%x.2), replica_groups=[8,2]<=[16], \
dimensions={0}
  ROOT %tuple.2 = (s32[]{:T(128)}, f32[4,64]{1,0:T(4,128)}) tuple(%i.2, %x.2)
}

ENTRY %main.1 (x: f32[4,64]) -> f32[4,64] {
  %x = f32[4,64]{1,0:T(4,128)} parameter(0)
  %zero = s32[]{:T(128)} constant(0)
  %init = (s32[]{:T(128)}, f32[4,64]{1,0:T(4,128)}) tuple(%zero, %x)
  %while.1 = (s32[]{:T(128)}, f32[4,64]{1,0:T(4,128)}) while(%init), condition=%condition.1, \
body=%body.1
  %y = f32[4,64]{1,0:T(4,128)} get-tuple-element(%while.1), index=1
  %all-reduce.1 = (f32[4,64]{1,0:T(4,128)}, bf16[3,32]{1,0:T(4,128)(2,1)S(1)}) \
all-reduce(%y, %z), channel_id=2, replica_groups=mesh['data'=8,'space'=2] {'data','space'}, \
to_apply=%add.1, metadata={op_name="jit(f)/reduce_sum[axes=(0,)]"}
  ROOT %out = f32[4,64]{1,0:T(4,128)} get-tuple-element(%all-reduce.1), index=0
}
"""


def entry(*instructions: str) -> str:
    lines = ["HloModule m, num_partitions=8", "", "ENTRY %main (x: f32[4]) -> f32[4] {"]
    return "\n".join([*lines, *(f"  {line}" for line in instructions), "}"])


def only(text: str) -> Collective:
    (one,) = Hlo(text).collectives()
    return one


def test_a_loop_runs_its_collectives_as_often_as_it_turns() -> None:
    all_reduce, all_gather = Hlo(LOOPS).collectives()
    assert all_gather == Collective("all-gather", 2, 19, 19 * 8 * 64 * 4, ("f32",))
    num_bytes = 4 * 64 * 4 + 3 * 32 * 2
    assert all_reduce == Collective("all-reduce", 16, 1, num_bytes, ("bf16", "f32"))


def test_a_loop_of_unknown_length_counts_once_and_says_so() -> None:
    all_gather = Hlo(LOOPS.replace("direction=LT", "direction=NE")).collectives()[1]
    assert (all_gather.count, all_gather.in_unknown_loops) == (1, 1)


def test_the_compilers_own_trip_count_comes_first() -> None:
    told = ', backend_config={"known_trip_count":{"n":"7"}}'
    all_gather = Hlo(LOOPS.replace("body=%body.1", f"body=%body.1{told}")).collectives()[1]
    assert all_gather.count == 7


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("{{0,1,2,3},{4,5,6,7}}", 4),
        ("[4,2]<=[8]", 2),
        ("[2,4]<=[4,2]T(1,0)", 4),
        ("mesh['data'=4,'space'=2] {'space'}", 2),
        ("mesh['data'=8] {'data':(2)4}", 4),
    ],
)
def test_groups_are_read_in_every_notation(groups: str, size: int) -> None:
    line = f"%r = f32[10]{{0}} all-reduce(%x), replica_groups={groups}, to_apply=%add"
    assert only(entry(line)).group_size == size


def test_bytes_are_those_of_the_whole_array() -> None:
    scattered = "%r = bf16[10,3]{1,0} reduce-scatter(%x), replica_groups=[2,4]<=[8], to_apply=%add"
    assert only(entry(scattered)).bytes == 4 * 10 * 3 * 2
    sent = "%p = u8[7,3]{1,0} collective-permute(%x), source_target_pairs={{0,1},{1,2}}"
    assert only(entry(sent)) == Collective("collective-permute", 2, 1, 21, ("u8",))


def test_asynchronous_collectives_count_once_with_what_they_give() -> None:
    start = (
        "%s = (f32[4]{0}, f32[16]{0}, u32[]{:S(2)}) all-gather-start(%x), "
        "replica_groups=[2,4]<=[8], dimensions={0}"
    )
    done = "%d = f32[16]{0} all-gather-done(%s)"
    assert only(entry(start, done)) == Collective("all-gather", 4, 1, 64, ("f32",))


def test_a_fusion_of_an_all_reduce_and_a_slice_is_a_reduce_scatter() -> None:
    fused = """\
%all-reduce-scatter.1 (p: f32[16]) -> f32[2] {
  %p = f32[16]{0} parameter(0)
  %r = f32[16]{0} all-reduce(%p), replica_groups=[1,8]<=[8], to_apply=%add
  ROOT %slice = f32[2]{0} dynamic-slice(%r, %i), dynamic_slice_sizes={2}
}

"""
    line = "%f = f32[2]{0} fusion(%x), kind=kCustom, calls=%all-reduce-scatter.1"
    assert only(fused + entry(line)) == Collective("reduce-scatter", 8, 1, 64, ("f32",))


def test_a_program_without_collectives_has_none() -> None:
    assert Hlo(entry("ROOT %r = f32[4]{0} negate(%x)")).collectives() == ()
    with pytest.raises(ValueError, match="ENTRY"):
        Hlo("module @jit_f attributes {}")


def test_traffic_is_that_of_main_memory_alone() -> None:
    text = entry(
        "%x = f32[4]{0} parameter(0)",
        "%near = f32[4]{0:T(128)S(1)} negate(%x)",  # reads 16
        "%sum = f32[4]{0} add(%near, %x)",  # reads 16, writes 16
        "%c = (f32[4]{0:S(1)}, f32[4]{0}, u32[]{:S(2)}) copy-start(%sum)",  # reads 16
        "%far = f32[4]{0:S(1)} copy-done(%c)",
        "%part = f32[1]{0:S(1)} slice(%x), slice={[0:1]}",  # reads 4 of the 16
    )
    assert Hlo(text).memory_traffic() == 16 + 32 + 16 + 4


def test_traffic_counts_loops_and_leaves_the_inside_of_fusions_out() -> None:
    # The loop reads f32[4,64] 19 times and gathers it into on-chip memory; then an all-reduce reads
    # and writes it.
    assert Hlo(LOOPS).memory_traffic() == (19 + 2) * 4 * 64 * 4
    fused = """\
%fused.1 (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  %inner = f32[4]{0} negate(%p)
  ROOT %outer = f32[4]{0} negate(%inner)
}

"""
    lines = ["%x = f32[4]{0} parameter(0)", "%f = f32[4]{0} fusion(%x), kind=kLoop, calls=%fused.1"]
    assert Hlo(fused + entry(*lines)).memory_traffic() == 32


def test_a_send_to_another_slice_counts_what_it_sends_alone() -> None:
    text = entry(
        "%x = f32[4]{0:T(128)} parameter(0)",
        "%token = token[] after-all()",
        "%send = (f32[4]{0:T(128)}, u32[], token[]) send(%x, %token), channel_id=8, "
        'is_host_transfer=true, frontend_attributes={_xla_megascale_target="{1,2}x{0:3}"}',
        "%send-done = token[] send-done(%send), channel_id=8",
        "ROOT %y = f32[4]{0:T(128)} copy(%x)",
    )
    assert only(text) == Collective("send", 2, 1, 16, ("f32",))
    assert str(only(text)) == "1 send, 0.00 MiB (f32)"


def test_products_are_counted_by_what_they_multiply() -> None:
    text = entry(
        "%x = s8[4,4]{1,0:T(8,128)} parameter(0)",
        "%y = bf16[4,4]{1,0:T(8,128)} parameter(1)",
        "%dot = s32[4,4]{1,0:T(8,128)} dot(%x, %x), lhs_contracting_dims={1}",
        "ROOT %product = f32[4,4]{1,0:T(8,128)} convolution(%y, %y), dim_labels=bf_io->bf",
    )
    assert Hlo(text).products() == {"s8": 1, "bf16": 1}
