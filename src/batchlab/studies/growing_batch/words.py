"""What the pictures of the study have in common."""

from __future__ import annotations

from batchlab._text import Text
from batchlab.studies.claim import Axis

NORM = Axis(Text("mean of ‖∇f‖²", "‖∇f‖²の平均"), log=True)
BATCH = Axis(Text("batch size (examples)", "バッチサイズ（件）"), log=True, base=2)
RATE = Axis(Text("learning rate × L", "学習率×L"), log=True)
UPDATES = Axis(Text("updates", "更新回数"), log=True)
MEASURED = Text("measured", "測定値")
GROWING_THEOREM = "kamo2025, theorem for a growing batch size"
EXACT = Text("L, σ² and the gap are exact.", "L・σ²・初期値と最小値の差は厳密な値です。")
EVERY = Text("mean of the problems with its 99 % range", "点は問題の平均、線は99%の範囲")
