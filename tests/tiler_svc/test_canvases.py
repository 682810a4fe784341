"""The laws of making, finding, listing and deleting canvases."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from grpc import aio

from handscroll.branch import MAX_BRANCHES
from handscroll.canvas import Branch, Canvas, PromptRegion
from handscroll.errors import InvalidRequest, NotFound, SpecMismatch, StillNeeded
from handscroll.geometry import Extent, Patch, Tile
from handscroll_api.canvas.v1 import canvas_service_pb2 as pb
from svckit import wire
from svckit.client import calling
from svckit.keys import (
    Key,
    Prefix,
    canvas_key,
    holder_prefix,
    owner_key,
    patch_key,
    text_key,
    tile_key,
)
from svckit.specs import Specs
from svckit.store import Store
from svckit.wire import Model
from tests.tiler_svc.fakes import ENCODER, House
from tiler_svc.canvases import PATIENCE_S, Canvases
from tiler_svc.peers import Generator, Models
from tiler_svc.pictures import Pictures
from tiler_svc.settings import TilerSettings

pytestmark = pytest.mark.anyio

ANNE, BERT = "anne-has-a-secret", "bert-has-a-secret"


def says(owner: str | None) -> Any:
    return None if owner is None else aio.Metadata(("x-owner", owner))


async def create(home: House, owner: str | None = None, **spec: Any) -> pb.CreateCanvasResponse:
    request = pb.CreateCanvasRequest(**{"world": "planet"} | spec)
    with calling("the tiler"):
        return await home.canvases.CreateCanvas(request, metadata=says(owner))


async def own(home: House, owner: str, **page: Any) -> pb.ListCanvasesResponse:
    with calling("the tiler"):
        return await home.canvases.ListCanvases(
            pb.ListCanvasesRequest(**page), metadata=says(owner)
        )


async def ids(home: House, owner: str) -> list[str]:
    return [one.canvas.id for one in (await own(home, owner)).canvases]


async def delete(home: House, owner: str | None, canvas: str) -> None:
    with calling("the tiler"):
        await home.canvases.DeleteCanvas(
            pb.DeleteCanvasRequest(canvas=canvas), metadata=says(owner)
        )


async def there(home: House) -> list[Key]:
    return [key async for key in home.store.keys(Prefix(""))]


async def test_canvas_is_the_models_best_unless_it_says_otherwise(home: House) -> None:
    answer = await create(home, world="scroll", seed=2**64 - 1)
    assert answer.created
    canvas = wire.canvas_from_pb(answer.canvas)
    model = home.model
    assert canvas == Canvas(
        model.digest, "scroll", 2**64 - 1, model.worlds["scroll"], sampling=model.sampling
    )
    assert answer.canvas.id == canvas.id
    assert await home.store.get(canvas_key(canvas.id)) == canvas.canonical()
    found = await home.canvases.GetCanvas(pb.GetCanvasRequest(canvas=canvas.id))
    assert found.canvas == answer.canvas


async def test_canvas_is_what_is_asked_for(home: House) -> None:
    extent = pb.Extent(kind=pb.Extent.KIND_PICTURE, finest=1, height_px=64, width_px=320)
    sampling = pb.Sampling(temperature=0.0, top_k=5)
    answer = await create(home, extent=extent, order="raster", frames=3, sampling=sampling)
    canvas = wire.canvas_from_pb(answer.canvas)
    assert canvas.extent == Extent("picture", 1, 64, 320)
    assert (canvas.order, canvas.frames) == ("raster", 3)
    assert canvas.sampling == replace(home.model.sampling, temperature=0.0, top_k=5)


async def test_same_spec_is_the_same_canvas(home: House) -> None:
    first = await create(home, ANNE, seed=5)
    second = await create(home, BERT, seed=5, model=home.model.digest, order="lattice", frames=1)
    assert (first.created, second.created) == (True, False)
    assert first.canvas == second.canvas


async def test_prompts_are_embedded_and_committed_once(home: House) -> None:
    sampling = pb.Sampling(guidance=2, negative_prompt="rain")
    await create(home, prompt="a lake", sampling=sampling)
    await create(home, prompt="a lake", sampling=sampling, seed=1)
    assert home.tokenizer.embedded == ["a lake", "rain"]
    for prompt in ("a lake", "rain"):
        vector = await home.store.get(text_key(ENCODER, prompt))
        assert vector == np.array([0.6, 0.8], "<f4").tobytes()


async def test_prompt_of_spaces_is_no_prompt(home: House) -> None:
    sampling = pb.Sampling(negative_prompt="\t")
    blank = await create(home, prompt=" \n ", sampling=sampling)
    assert blank.canvas == (await create(home)).canvas
    assert home.tokenizer.embedded == []


async def test_nothing_is_written_for_a_canvas_that_cannot_be(home: House) -> None:
    before = await there(home)
    plane, scroll = pb.Extent.KIND_PLANE, pb.Extent.KIND_SCROLL
    cases: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (NotFound, "no world 'mars'; there are planet, scroll", {"world": "mars"}),
        (NotFound, "no model 'x' is served", {"model": "x"}),
        (InvalidRequest, "prompt may have 2000 characters, not 2001", {"prompt": "a" * 2001}),
        (InvalidRequest, "a plane has no height", {"extent": {"kind": plane, "height_px": 64}}),
        (InvalidRequest, "a scroll has a height", {"extent": {"kind": scroll, "finest": 2}}),
        (InvalidRequest, "extent.kind must be said", {"extent": {"finest": 1}}),
        (InvalidRequest, "extent.kind must be one of", {"extent": {"kind": 9}}),
        (SpecMismatch, "levels 0 to 2", {"extent": {"kind": plane, "finest": 3}}),
        (
            SpecMismatch,
            "176 px high at level 0, the canvas 192 px",
            {"world": "scroll", "extent": {"kind": scroll, "finest": 2, "height_px": 768}},
        ),
        (InvalidRequest, "frames must be 1 to 32, not 33", {"frames": 33}),
        (InvalidRequest, "order must be lattice", {"order": "spiral"}),
        (InvalidRequest, "needs a bounded picture", {"order": "raster"}),
        (InvalidRequest, "temperature must be 0 to 4", {"sampling": {"temperature": 5}}),
        (InvalidRequest, "temperature", {"sampling": {"temperature": float("nan")}}),
        (InvalidRequest, "group must divide 256", {"sampling": {"group": 0}}),
        (InvalidRequest, "dtype must be one of", {"sampling": {"dtype": "int3"}}),
        (
            InvalidRequest,
            "negative_prompt may have 2000",
            {"sampling": {"negative_prompt": "b" * 2001}},
        ),
    ]
    for kind, message, spec in cases:
        with pytest.raises(kind, match=message):
            await create(home, ANNE, **spec)
    home.tokenizer.encoder = "1" * 64
    with pytest.raises(SpecMismatch, match="encoder 0000000000000000…, the tokenizer makes"):
        await create(home, ANNE, prompt="a lake")
    assert await there(home) == before


@pytest.mark.parametrize("owner", ["short", "x" * 129, "with some spaces in it"])
async def test_owner_that_cannot_be_is_refused_without_being_named(home: House, owner: str) -> None:
    for call in (create(home, owner), own(home, owner), delete(home, owner, "0" * 64)):
        with pytest.raises(InvalidRequest, match="x-owner must be 16 to 128") as failure:
            await call
        assert owner not in str(failure.value)


async def test_nobody_can_neither_list_nor_delete(home: House) -> None:
    canvas = (await create(home)).canvas.id
    with pytest.raises(InvalidRequest, match="x-owner"), calling("the tiler"):
        await home.canvases.ListCanvases(pb.ListCanvasesRequest())
    with pytest.raises(InvalidRequest, match="x-owner"):
        await delete(home, None, canvas)


async def test_list_shows_only_ones_own_newest_first(home: House) -> None:
    began = datetime.now(UTC)
    made = [(await create(home, ANNE, seed=seed)).canvas.id for seed in range(5)]
    theirs = (await create(home, BERT, seed=9)).canvas.id
    await create(home, seed=8)
    await create(home, ANNE, seed=0)  # again: it keeps its place
    page = await own(home, ANNE)
    assert [one.canvas.id for one in page.canvases] == made[::-1]
    times = [one.made_at.ToDatetime(UTC) for one in page.canvases]
    assert times == sorted(times, reverse=True) and times[-1] >= began
    assert await ids(home, BERT) == [theirs]
    assert await ids(home, "somebody-else-entirely") == []


async def test_pages_are_the_list_cut(home: House) -> None:
    for seed in range(7):
        await create(home, ANNE, seed=seed)
    whole, pages, token = await ids(home, ANNE), [], ""
    while True:
        page = await own(home, ANNE, page_size=3, page_token=token)
        pages.append([one.canvas.id for one in page.canvases])
        token = page.next_page_token
        if not token:
            break
    assert [len(page) for page in pages] == [3, 3, 1]
    assert sum(pages, []) == whole


@pytest.mark.parametrize("page", [{"page_size": 1001}, {"page_token": "x"}, {"page_token": "é"}])
async def test_page_that_cannot_be_is_refused(home: House, page: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=next(iter(page))):
        await own(home, ANNE, **page)


async def test_canvas_goes_with_its_last_owner(home: House) -> None:
    canvas = (await create(home, ANNE)).canvas.id
    await create(home, BERT)
    patch, tile = patch_key(canvas, Patch(0, 0, 0, 0)), tile_key(canvas, Tile(0, 0, 0), "png")
    for key in (patch, tile):
        await home.store.create(key, b"1")
    await delete(home, ANNE, canvas)
    assert await ids(home, ANNE) == [] and await ids(home, BERT) == [canvas]
    assert await home.store.get(patch) and await home.store.get(tile)
    with pytest.raises(NotFound, match="not among your own"):
        await delete(home, ANNE, canvas)
    await delete(home, BERT, canvas)
    assert await there(home) == []
    with pytest.raises(NotFound), calling("the tiler"):
        await home.canvases.GetCanvas(pb.GetCanvasRequest(canvas=canvas))
    assert (await create(home, ANNE)).created


async def test_owners_who_leave_together_leave_nothing(home: House) -> None:
    owners = [f"owner-number-{number:04d}" for number in range(8)]
    for owner in owners:
        canvas = (await create(home, owner)).canvas.id
    await asyncio.gather(*(delete(home, owner, canvas) for owner in owners))
    assert await there(home) == []


async def test_deletion_cut_short_can_be_ended(home: House) -> None:
    """The spec is gone, the owner's mark is still there."""
    canvas = (await create(home, ANNE)).canvas.id
    patch = patch_key(canvas, Patch(0, 0, 0, 0))
    await home.store.create(patch, b"1")
    await home.store.delete(canvas_key(canvas))
    await home.store.delete_all(holder_prefix(canvas))
    assert await ids(home, ANNE) == []
    await delete(home, ANNE, canvas)
    assert await there(home) == []


def branch(parent: str, **place: int) -> dict[str, Any]:
    """What asks for a branch of a canvas."""
    place = {"top_px": 0, "left_px": -64, "height_px": 64, "width_px": 128} | place
    return {"world": "", "seed": 8, "branch": pb.Branch(parent=parent, **place)}


async def test_a_branch_is_as_its_parent_unless_it_says_otherwise(home: House) -> None:
    sampling = pb.Sampling(temperature=0.5, top_k=9)
    extent = pb.Extent(kind=pb.Extent.KIND_PICTURE, finest=1, height_px=320, width_px=640)
    told = (
        await create(home, extent=extent, order="raster", sampling=sampling, prompt="a lake")
    ).canvas
    changed = pb.Sampling(temperature=0.9)
    wish = branch(told.id, left_px=64) | {"sampling": changed}
    parent, child = (
        wire.canvas_from_pb(one) for one in (told, (await create(home, **wish)).canvas)
    )
    assert child.branch == Branch(parent.id, 0, 64, 64, 128)
    assert child.sampling == replace(parent.sampling, temperature=0.9)
    assert (child.seed, child.prompt) == (8, ""), "what it shows, it says"
    expected = replace(parent, seed=8, prompt="", sampling=child.sampling, branch=child.branch)
    assert child == expected


async def test_nothing_is_written_for_a_branch_that_cannot_be(home: House) -> None:
    parent = (await create(home, world="scroll")).canvas.id
    before = await there(home)
    plane = pb.Extent(kind=pb.Extent.KIND_PLANE, finest=2)
    cases: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (NotFound, "there is no canvas bbbb", branch("b" * 64)),
        (InvalidRequest, "canvas id must be 64", branch("x")),
        (InvalidRequest, "multiples of 64 px", branch(parent, top_px=32)),
        (InvalidRequest, "only 0 to 704", branch(parent, height_px=768)),
        (InvalidRequest, "width must be 1 to 4096", branch(parent, width_px=4160)),
        (SpecMismatch, "parent's world, scroll, not planet", {"world": "planet", "extent": plane}),
        (SpecMismatch, "parent's frames, 1, not 2", {"frames": 2}),
    ]
    for kind, message, spec in cases:
        with pytest.raises(kind, match=message):
            await create(home, ANNE, **branch(parent) | spec)
    assert await there(home) == before


async def test_a_chain_of_branches_is_bounded(home: House) -> None:
    last = (await create(home)).canvas.id
    for _ in range(MAX_BRANCHES):
        last = (await create(home, **branch(last))).canvas.id
    with pytest.raises(InvalidRequest, match=f"{MAX_BRANCHES} long"):
        await create(home, **branch(last))


async def test_canvas_with_branches_of_ones_own_stays(home: House) -> None:
    canvas = (await create(home, ANNE)).canvas.id
    child = (await create(home, ANNE, **branch(canvas))).canvas.id
    with pytest.raises(StillNeeded, match=f"your canvas {child} branches off from {canvas}"):
        await delete(home, ANNE, canvas)
    assert set(await ids(home, ANNE)) == {canvas, child}
    await create(home, BERT)
    await delete(home, BERT, canvas)  # it stays Anne's
    for one in (child, canvas):
        await delete(home, ANNE, one)
    assert await there(home) == []


async def test_canvas_goes_with_the_last_branch_that_others_made(home: House) -> None:
    """They keep nobody from deleting their own, and lose nothing themselves."""
    canvas = (await create(home, ANNE)).canvas.id
    child = (await create(home, BERT, **branch(canvas))).canvas.id
    other = (await create(home, None, **branch(canvas) | {"seed": 9})).canvas.id
    grandchild = (await create(home, ANNE, **branch(child))).canvas.id
    await delete(home, ANNE, canvas)
    assert await ids(home, ANNE) == [grandchild]
    with pytest.raises(NotFound, match="not among your own"):
        await delete(home, ANNE, canvas)
    await delete(home, BERT, child)  # Anne's stands on it
    for one in (canvas, child, grandchild):
        assert await home.store.get(canvas_key(one))
    await delete(home, ANNE, grandchild)
    for one, kept in ((grandchild, False), (child, False), (canvas, True), (other, True)):
        assert (await home.store.get(canvas_key(one)) is not None) == kept
    await house_canvases(home).delete(other, BERT, admin=True)
    assert await there(home) == []


async def test_canvas_made_again_after_it_was_left_to_its_branches_is_ones_own(home: House) -> None:
    canvas = (await create(home, ANNE)).canvas.id
    child = (await create(home, BERT, **branch(canvas))).canvas.id
    await delete(home, ANNE, canvas)
    again = await create(home, ANNE)
    assert (again.canvas.id, again.created) == (canvas, False)
    await delete(home, BERT, child)
    assert await home.store.get(canvas_key(canvas))
    await delete(home, ANNE, canvas)
    assert await there(home) == []


async def test_branches_that_go_together_take_their_parent_with_them(home: House) -> None:
    canvas = (await create(home, ANNE)).canvas.id
    made = [
        (await create(home, BERT, **branch(canvas) | {"seed": seed})).canvas.id for seed in range(6)
    ]
    await delete(home, ANNE, canvas)
    await asyncio.gather(*(delete(home, BERT, one) for one in made))
    assert await there(home) == []


async def test_a_mark_that_a_death_left_keeps_no_canvas(home: House) -> None:
    canvas = (await create(home, ANNE)).canvas.id
    child = (await create(home, ANNE, **branch(canvas))).canvas.id
    await home.store.delete(canvas_key(child))  # its deletion got so far
    await delete(home, ANNE, canvas)
    assert await home.store.get(canvas_key(canvas)) is None


def house_canvases(home: House) -> Canvases:
    """What the tiler of a house asks, without its door."""
    return Canvases(
        home.store,
        Specs(home.store),
        Models(home.generator),  # type: ignore[arg-type]
        home.tokenizer,  # type: ignore[arg-type]
        Pictures(home.store, home.tokenizer),  # type: ignore[arg-type]
        {},
    )


async def delete_after(pause_ms: int, canvases: Canvases, canvas: Canvas, owner: str) -> None:
    for _ in range(pause_ms):
        await asyncio.sleep(0.001)
    await canvases.delete(canvas.id, owner)


async def test_a_branch_made_while_its_parent_is_deleted_is_whole_or_not_at_all(
    home: House,
) -> None:
    """Whichever comes first: no branch without a parent is left."""
    canvases = house_canvases(home)
    for pause in range(12):
        parent = Canvas(home.model.digest, "planet", pause, home.model.worlds["planet"])
        await canvases.create(parent, home.model, ANNE)
        child = replace(parent, branch=Branch(parent.id, 0, 0, 64, 64))

        made, _ = await asyncio.gather(
            canvases.create(child, home.model, BERT),
            delete_after(pause, canvases, parent, ANNE),
            return_exceptions=True,
        )
        alive = [await home.store.get(canvas_key(one.id)) for one in (child, parent)]
        assert alive[0] is None or alive[1] is not None
        assert isinstance(made, NotFound) == (alive[0] is None)


async def test_a_branch_made_while_the_last_other_one_goes_keeps_their_parent(home: House) -> None:
    canvases = house_canvases(home)
    for pause in range(16):
        parent = Canvas(home.model.digest, "planet", pause, home.model.worlds["planet"])
        old, new = (replace(parent, branch=Branch(parent.id, 0, x, 64, 64)) for x in (0, 64))
        await canvases.create(parent, home.model, ANNE)
        await canvases.create(old, home.model, BERT)
        await canvases.delete(parent.id, ANNE)

        made, gone = await asyncio.gather(
            canvases.create(new, home.model, ANNE),
            delete_after(pause, canvases, old, BERT),
            return_exceptions=True,
        )
        assert gone is None
        assert await home.store.get(canvas_key(old.id)) is None
        alive = [await home.store.get(canvas_key(one.id)) for one in (new, parent)]
        assert alive[0] is None or alive[1] is not None
        assert isinstance(made, NotFound) == (alive[0] is None)


async def test_worlds_have_a_canvas_to_open_first_that_nobody_can_delete(home: House) -> None:
    # Anne makes the same one before anybody asks for the worlds.
    first_seeds = TilerSettings.model_fields["first_seeds"].default
    mine = (await create(home, ANNE, seed=first_seeds["planet"])).canvas.id
    worlds = (await home.canvases.ListWorlds(pb.ListWorldsRequest())).worlds
    assert [world.name for world in worlds] == ["planet", "scroll"]
    assert worlds[0].canvas == mine
    for world in worlds:
        assert world.model == home.model.digest
        found = await home.canvases.GetCanvas(pb.GetCanvasRequest(canvas=world.canvas))
        assert found.canvas.seed == first_seeds[world.name]
        assert found.canvas.extent == world.extent
    await delete(home, ANNE, mine)
    assert await home.store.get(canvas_key(mine))
    assert await home.canvases.ListWorlds(pb.ListWorldsRequest()) == pb.ListWorldsResponse(
        worlds=worlds
    )
    assert home.generator.asked_models == 1


async def test_spec_cut_short_by_a_power_cut_is_made_again(home: House) -> None:
    canvas = (await create(home, ANNE)).canvas.id
    whole = await home.store.get(canvas_key(canvas))
    await home.store.delete(canvas_key(canvas))
    await home.store.create(canvas_key(canvas), b"{")
    assert (await create(home, ANNE)).canvas.id == canvas
    assert await home.store.get(canvas_key(canvas)) == whole
    await home.store.delete(canvas_key(canvas))
    await home.store.create(canvas_key(canvas), b"{")
    await delete(home, ANNE, canvas)
    assert await there(home) == []


async def test_stranger_cannot_delete_what_was_made_anonymously(home: House) -> None:
    canvas = (await create(home, None)).canvas.id
    assert (await create(home, ANNE)).canvas.id == canvas
    await delete(home, ANNE, canvas)
    assert await home.store.get(canvas_key(canvas))


async def test_worlds_are_told_from_the_store_while_the_painters_sleep(home: House) -> None:
    told = (await home.canvases.ListWorlds(pb.ListWorldsRequest())).worlds

    class Asleep(Generator):
        def __init__(self) -> None:
            pass

        async def models(self) -> list[Model]:
            await asyncio.Event().wait()
            raise AssertionError

    def woken(store: Store) -> Canvases:
        pictures = Pictures(store, home.tokenizer)  # type: ignore[arg-type]
        models = Models(Asleep())
        return Canvases(store, Specs(store), models, home.tokenizer, pictures, {})  # type: ignore[arg-type]

    worlds = await woken(home.store).worlds()
    assert [(one.name, one.canvas_id, one.model) for one in worlds] == [
        (one.name, one.canvas, one.model) for one in told
    ]
    with pytest.raises(TimeoutError):  # nobody knows, so it waits
        await asyncio.wait_for(woken(Store.open("memory://")).worlds(), 2 * PATIENCE_S)


async def test_page_ends_before_it_outgrows_a_message(home: House) -> None:
    """With four bytes a character, in the prompts of many regions."""
    said = [pb.PromptRegion(prompt="🏔" * 2000, height_px=1, width_px=1)] * 4
    made = [(await create(home, ANNE, seed=seed, regions=said)).canvas.id for seed in range(80)]
    found, token = list[str](), ""
    while True:
        page = await own(home, ANNE, page_token=token)
        found += [one.canvas.id for one in page.canvases]
        token = page.next_page_token
        if not token:
            break
    assert found == made[::-1]


async def test_all_words_of_a_canvas_are_embedded_before_it_is_there(home: House) -> None:
    said = [
        pb.PromptRegion(prompt=prompt, top_px=-5, height_px=100, width_px=2**30)
        for prompt in ("stormy sea", " \t", "snow", "stormy sea")
    ]
    made = await create(home, prompt="hills", regions=said)
    canvas = wire.canvas_from_pb(made.canvas)
    assert [one.prompt for one in canvas.regions] == ["stormy sea", "", "snow", "stormy sea"]
    assert canvas.regions[0] == PromptRegion("stormy sea", -5, 0, 100, 2**30, 256)
    assert sorted(home.tokenizer.embedded) == ["hills", "snow", "stormy sea"]
    for prompt in ("hills", "snow", "stormy sea"):
        assert await home.store.get(text_key(ENCODER, prompt)) is not None
    with pytest.raises(InvalidRequest, match="a region's height"):
        await create(home, regions=[pb.PromptRegion(prompt="sea")])
    with pytest.raises(InvalidRequest, match="32 regions, not 33"):
        await create(home, regions=[said[0]] * 33)


async def test_what_moves_is_embedded_with_each_prompt(home: House) -> None:
    made = await create(home, prompt="hills", frames=4, motion="clouds drift left")
    assert wire.canvas_from_pb(made.canvas).motion == "clouds drift left"
    assert sorted(home.tokenizer.embedded) == ["hills", "hills, clouds drift left"]
    silent = await create(home, prompt="hills", frames=4, motion=" ")
    assert wire.canvas_from_pb(silent.canvas).motion == ""
    with pytest.raises(InvalidRequest, match="at least 2 frames"):
        await create(home, motion="waves roll")


async def test_models_are_asked_for_again_when_one_is_unknown(home: House) -> None:
    await create(home)
    home.generator.model = replace(home.model, digest="d" * 64, worlds={"moon": Extent("plane", 0)})
    assert (await create(home, world="moon")).canvas.model == "d" * 64


@pytest.mark.parametrize("canvas", ["", "g" * 64, "A" * 64, "../" * 20])
async def test_what_is_no_id_is_refused(home: House, canvas: str) -> None:
    with pytest.raises(InvalidRequest, match="64 characters"), calling("the tiler"):
        await home.canvases.GetCanvas(pb.GetCanvasRequest(canvas=canvas))
    with pytest.raises(InvalidRequest, match="64 characters"):
        await delete(home, ANNE, canvas)


async def test_owner_leaves_only_a_digest(home: House) -> None:
    canvas = (await create(home, ANNE)).canvas.id
    assert owner_key(ANNE, canvas) in await there(home)
    assert not [key for key in await there(home) if "anne" in key]
