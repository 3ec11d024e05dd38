from types import SimpleNamespace

from kdtool.plotting.fonts import fonts


def test_fonts_for_letters_that_the_first_one_lacks_come_after_it(monkeypatch):
    from matplotlib.font_manager import fontManager

    names = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Comic Sans MS", "DejaVu Sans")
    installed = [SimpleNamespace(name=name, weight=400) for name in names]
    monkeypatch.setattr(fontManager, "ttflist", [*installed, SimpleNamespace(name="PingFang SC", weight=700)])
    assert fonts() == ["DejaVu Sans", "Noto Sans CJK JP", "Noto Sans CJK SC"]
    monkeypatch.setattr(fontManager, "ttflist", [])
    assert fonts() == ["DejaVu Sans"]
