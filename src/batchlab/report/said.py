"""The record's own sentences, which are English, said in Japanese too."""

from __future__ import annotations

import re

from batchlab._text import Text, verbatim
from batchlab.report import names

_TAKEN = "学習手順に{0}の指定がないため、{1}とみなした"
_RANGED = r"(\S+(?: %)?) \((\S+(?: %)?) to (\S+(?: %)?)\)"
"""A number with its interval."""
_PREFERRED = (
    (
        f"disagree on {_RANGED} of the validation examples",
        "2回の学習で判断が食い違う検証データの割合",
        "結果が最もそろう設定",
        "結果がよりそろう",
        "結果のそろい方",
    ),
    (
        f"rest on {_RANGED} internal features",
        "判断の根拠になっている特徴の数",
        "判断の根拠になっている特徴が最も少ない設定",
        "特徴がより少ない",
        "特徴の数",
    ),
    (
        f"Hessian is {_RANGED}",
        "ヘッセ行列の最大固有値",
        "損失の谷が最も平らな設定",
        "より平らな",
        "平らさ",
    ),
)
"""What is said of a finalist by a preference; then in Japanese the quantity, which is taken, what
another would have to be, and what decides.
"""


def _limits(source: str, japanese: str) -> tuple[tuple[str, str], ...]:
    """Where a limit of memory is from, for one process or for several."""
    shared = rf"{source}, shared by (\d+) processes"
    return (source, japanese), (shared, japanese + "を{0}プロセスで共有")


def _preference(
    told: str, quantity: str, taken: str, more: str, name: str
) -> tuple[tuple[str, str], ...]:
    """The sentences in which a preference gives its reason."""
    among = r"of (\d+) finalists that (\d+) repeats cannot tell apart, "
    alike = "{1}回の繰り返しでは差がつかない候補{0}通りのうち、"
    mine = quantity + "：{2}（{3}～{4}）"
    apart = "の差：{5}（{6}～{7}）"
    return (
        (
            f"{among}.+ is taken: .+ {told}; the difference from .+ is {_RANGED}",
            f"{alike}{taken}を選んだ（{mine}。目的の量で最良の候補と{apart}）",
        ),
        (
            f"{among}none is surely .+ {told}; the least difference from it is {_RANGED}",
            f"{alike}目的の量で最良の候補より確かに{more}ものはないため、それを選んだ（{mine}。"
            f"これと最も小さい候補と{apart}）",
        ),
        (
            rf"(\d+) repeats tell the best finalist from every other: .+ {told}\)",
            f"{{0}}回の繰り返しで最良の候補が決まったため、{name}では選んでいない（{quantity}："
            "{1}（{2}～{3}））",
        ),
    )


_SENTENCES = (
    (
        r"what fits is tried with the longest of (\d+) examples looked at",
        "動くサイズは、確かめた{0}件のうち最も長いデータで試す",
    ),
    (
        r"every fresh sample takes (\S+) s to read, as given and not measured; .+",
        "新しいデータ1件の読み込みは{0}秒とする（指定値で、実測ではない）。計算時間に加算する（両者が"
        "互いを待つ場合）",
    ),
    (
        r"the baseline names no samples: 10 epochs are assumed",
        _TAKEN.format("学習の長さ", "10エポック"),
    ),
    (r"the baseline names no momentum \(β₁\): (.+) is assumed", _TAKEN.format("β₁", "{0}")),
    (r"the baseline names no (\w+): (.+) is assumed", _TAKEN),
    (
        r"no validation data: ([\d,]+) of ([\d,]+) training examples are kept for it",
        "検証データがないため、学習データ{1}件のうち{0}件を検証用に分けた",
    ),
    (
        r"trained on ([\d,]+) of ([\d,]+) training examples, the same share of every class; .+",
        "学習データ{1}件のうち{0}件で学習（どのクラスも同じ割合。検証・テストデータは全件）",
    ),
    (
        r"trained on ([\d,]+) of ([\d,]+) training examples, drawn at random; .+",
        "学習データ{1}件のうち無作為に選んだ{0}件で学習（検証・テストデータは全件）",
    ),
    (
        r"a training has the same number of passes over the part: ([\d,]+) samples instead of "
        r"([\d,]+); .+",
        "データを回す回数は元と同じで、学習の長さは{1}件ではなく{0}件（スケジュールとウォームアップ"
        "はその割合で決まり、形は変わらない）",
    ),
    (
        r"a target and demands on the metric are judged by trainings on the part",
        "目標値と評価指標への条件は、データの一部での学習で判定した",
    ),
    (
        r"today's batch size is a schedule \((.+)\): the short run, .+ with (\d+) throughout, .+",
        "現在のバッチサイズは途中で変わる（{0}）。下調べ・バッチサイズの探索・予備の学習では終始{1}の学習と"
        "比べ、本番の長さでは現在のスケジュールそのものと比べた",
    ),
    (
        r"the task names no metric: the validation loss is used",
        "評価指標の指定がないため、検証データでの損失を用いた",
    ),
    (
        r"one run of today's settings takes about (.+), longer than the budget: .+",
        "現在の設定での学習1回（約{0}）が予算の時間を超えるため、短い試行からの予測までとした",
    ),
    (
        r"without --budget this stops after stage A; expected: (.+)",
        "--budgetの指定がないため、段階A（下調べ）で終了（見込み：{0}）",
    ),
    (
        r"batch size (\d+) is left out: the largest that ran is (\d+)",
        "バッチサイズ{0}は除外（実際に動いた最大は{1}）",
    ),
    (
        r"batch size (\d+) is not searched: .+ it would take ([\d.]+) times as long",
        "バッチサイズ{0}は比較から除外（速さとノイズスケールから、{1}倍の時間がかかる見込み）",
    ),
    (
        r"batch size (\d+) is left out of the search: the budget does not pay for it",
        "バッチサイズ{0}は、予算の時間に収まらないため比較から除外",
    ),
    (
        r"today's settings diverge: nothing can be compared with them; .+",
        "現在の設定では学習が発散するため、比較できない。元の学習率を小さくする必要がある",
    ),
    (
        r"the search over all settings is left out: .+, about (.+)",
        "全項目の探索は、最初の組（約{0}）が予算の時間に収まらないため行っていない",
    ),
    (
        r"γ is not tuned: the model cannot be trained with one: (.+)",
        "このモデルは（f−初期値）/γの形では学習できないため、γは探索していない（{0}）",
    ),
    (
        r"the bound says nothing of a rate that grows: (.+)",
        "学習率を上げていく場合について、理論の上限からは何も言えない（{0}）",
    ),
    (
        r"memory ran out with (\d+) runs at a time: (\d+) at a time went on, .+",
        "同時に{0}回分の学習ではメモリが足りず、{1}回分ずつ続けた（結果は丸め誤差の範囲で計画どおり）",
    ),
    (
        r"`(.+)` was damaged: it is kept as `(.+)`, and .+",
        "`{0}`が壊れていたため、`{1}`として残し、その分は測定し直した",
    ),
    (
        r"less memory is free than was planned with: (.+); results are equal .+",
        "空きメモリが計画時より少なかった（{0}。結果は丸め誤差の範囲で計画どおり）",
    ),
    (
        r"(.+): that batch sizes up to ([\d,]+) fit is an assumption; .+",
        "メモリを測定できないため、バッチサイズ{1}まで動くとみなした（メモリが足りなかったものは除外）",
    ),
    (
        r"batch sizes from ([\d,]+) are left out: memory ran out",
        "バッチサイズ{0}以上は、メモリが足りないため除外",
    ),
    (
        r"reading the validation data once is expected to take (.+): timed on ([\d,]+) of "
        r"([\d,]+) .+",
        "検証データを1回読む時間は{0}の見込み（{2}件のうち{1}件で測定）",
    ),
    (
        r"stage A had been cut short by the budget: .+",
        "前回は予算の時間のため途中までだった段階A（下調べ）を、もう一度行った",
    ),
    (
        r"stage B is made again: the larger budget also pays for batch size (.+)",
        "予算が増えてバッチサイズ{0}も比べられるため、段階Bをもう一度行った",
    ),
    (
        r"the noise scale is measured (\d+) times instead of (\d+): .+",
        "ノイズスケールの測定は、予算の時間のため{1}回ではなく{0}回",
    ),
    (
        r"the short run of today's settings is not evaluated: .+",
        "現在の設定での短い学習は、予算の時間のため評価していない",
    ),
    (
        r"cell ([\w-]+): (.+), went on elsewhere from (.+)",
        "学習{0}は中断し（{1}）、別の計算機で{2}のところから続けた",
    ),
    (
        r"the target is reached soonest on (.+)",
        "目標に最も早く達する計算機：{0}",
    ),
    (
        r"the target costs least on (.+)",
        "目標に達する費用が最も小さい計算機：{0}",
    ),
    (
        r"a run has too few updates for learning rates to be compared",
        "1回の学習での更新回数が少なすぎて、学習率を比較できない",
    ),
    (
        r"no candidate did as well as today's settings in the search: nothing to confirm",
        "現在の設定に並ぶ候補がなかったため、確認の段階は行っていない",
    ),
    (
        r"more than one in five runs of today's settings diverged, .+",
        "現在の設定での学習の5回に1回以上が発散し、目標値を決められない。--targetで指定が必要",
    ),
    *(pattern for told in _PREFERRED for pattern in _preference(*told)),
    (
        r"there is one finalist only: the sharpness decides nothing",
        "候補が1つのため、平らさでは選んでいない",
    ),
    (
        r"there is one finalist only: the number of features decides nothing",
        "候補が1つのため、特徴の数では選んでいない",
    ),
    (
        r"preferring it costs: ([\d.]+|inf) times the (?:time|cost|examples) of the best by the "
        r"objective \(([\d.]+|inf) to ([\d.]+|inf), (\d+) repeats\)",
        "その代わり、目的の量（時間・費用・データ数）は最良の候補の{0}倍（{1}～{2}倍、{3}回の繰り返し）",
    ),
    (
        r"preferring it costs: .+ ([+-][\d.e-]+) \(([+-][\d.e-]+) to ([+-][\d.e-]+), "
        r"(\d+) repeats\)",
        "その代わり、評価指標の差は{0}（{1}～{2}、{3}回の繰り返し）",
    ),
    (
        r"the model cannot be taken apart into features: (.+)",
        "モデルを特徴に分けて調べることができない：{0}",
    ),
    (
        r"there is one finalist only: repeatability decides nothing",
        "候補が1つのため、結果のそろい方では選んでいない",
    ),
    (
        r"what the trainings differ in, other than the settings shown, is not known here",
        "示した設定のほかに学習どうしの違いがあるかどうかは、ここでは分からない",
    ),
    (
        r"(\d+) pairs share no seed: they are paired in the order given",
        "{0}組は乱数シードが共通でないため、指定された順に組にした",
    ),
    (
        r"(\d+) pairs are left out: a training of them has not ended and .+",
        "{0}組は、学習が終わっておらずこれから目標に達する可能性があるため除外した",
    ),
    (
        r"the trainings differ in length \((.+) to (.+) examples\): .+",
        "学習の長さが異なる（{0}～{1}件）。目標に達する前に終わった学習は未到達とみなした",
    ),
    (
        r"(\d+) alternatives: part of the pairs chose the best of them, (\d+) others judged it",
        "候補は{0}通り。一部の組で最良のものを選び、残りの{1}組で評価した",
    ),
    (
        r"(\d+) alternatives and too few pairs: those shown \((\d+)\) also chose the .+",
        "候補は{0}通りで、組の数が足りない。示した{1}組は最良のものを選ぶのにも使ったため、何も確定して"
        "いない",
    ),
    (
        r"the trainings ran on different devices: times compare these, too",
        "学習を行った装置が異なるため、時間の差には装置の差も含まれる",
    ),
    (
        r"no training with today's settings has ended: the goal is .+",
        "現在の設定での学習がまだ終わっていないため、これまでに達した値を目標とした",
    ),
    (
        r"examples before the checkpoint as whole batches of today",
        "再開前のデータ数は、現在のバッチサイズから計算した",
    ),
    (
        r"no metric is recorded: the training loss is compared",
        "評価指標が記録されていないため、学習中の損失で比べた",
    ),
    (
        r"more of (.+) is taken to be better, by its name",
        "{0}は、名前から、大きいほど良いとみなした",
    ),
    (
        r"less of (.+) is taken to be better, by its name",
        "{0}は、名前から、小さいほど良いとみなした",
    ),
    (
        r"times include evaluation: an older record does not tell it apart",
        "古い記録では評価の時間を区別できないため、時間には評価を含む",
    ),
    (r"(\d+) more repeats on fresh seeds", "新しい乱数で{0}回追加"),
    (
        r"every seed starts from the module's present weights; .+",
        "どの乱数でも、渡されたモジュールの現在の重みから学習を始める",
    ),
    (
        r"no trainer is given: Lightning's defaults are assumed, (\d+) epochs among them",
        "Trainerの指定がないため、Lightningの既定値（{0}エポックなど）とみなした",
    ),
    (
        r"no trainer is given: beside max_epochs, Lightning's defaults are assumed",
        "Trainerの指定がないため、エポック数のほかはLightningの既定値とみなした",
    ),
    (
        r"times are those of a plain PyTorch loop: .+",
        "時間はPyTorchの単純なループのもので、Trainerが更新ごとに加える時間を含まない",
    ),
    (
        r"(\w+) is not kept: the whole budget is trained",
        "{0}は用いず、最後まで学習する",
    ),
    (
        r"([\w.]+) is not called: what it changes in weights or data is not kept",
        "{0}は呼び出さない（重みやデータを変えていても反映されない）",
    ),
    (
        r"(limit_val_batches=\S+) is not kept: all validation data is read",
        "{0}は用いず、検証データをすべて読む",
    ),
    (
        r"your training loader does not shuffle: here every pass has a random order",
        "元のデータローダーは順序を変えないが、ここでは1巡ごとに無作為な順序とする",
    ),
    (
        r"the (\d+) worker processes of your training loader are not used",
        "元のデータローダーの{0}個の読み込みプロセスは用いない",
    ),
    (
        r"the global batch size is (\d+) = (.+) \(loader × accumulation × devices\)",
        "全体のバッチサイズは{0} = {1}（データローダー × 勾配の累積 × 装置の数）",
    ),
    (
        r"(limit_train_batches=\S+): an epoch is ([\d,]+) updates?",
        "{0}のため、1エポックは{1}回の更新とした",
    ),
    (
        r"an epoch of yours is ([\d,]+) updates?; here every update takes (\d+) examples, running "
        r"on into the next pass: ([\d,]+) updates? are (.+) passes",
        "元の1エポックは{0}回の更新。ここでは毎回{1}件を使い、次の巡へ続けるため、{2}回の更新で"
        "データ{3}巡となる",
    ),
    (
        r"(.+) is kept as straight lines, every update's rate to within (.+) of the peak",
        "{0}は折れ線で再現した（各更新の学習率の差は最大値の{1}以内）",
    ),
    (
        r"not trained, as the optimizer does not hold them: (.+)",
        "オプティマイザーに渡されていないため学習しないパラメーター：{0}",
    ),
    (
        r"in evaluation mode throughout, as in your trainer: (.+)",
        "元の学習と同じく、常に評価モードの部分：{0}",
    ),
    (
        r"training_step gives one loss for a whole batch: .+",
        "training_stepの損失はバッチ全体で1つのため、ノイズスケールは1件ごとではなく小さなバッチから"
        "測定し、範囲が広くなる（loss=を渡すと1件ごとに測定）",
    ),
    (
        r"validation_step is not read: the validation loss is training's, in evaluation mode",
        "validation_stepは用いず、検証データでの学習の損失（評価モード）を用いた",
    ),
    (
        r"Lightning averages the means of the batches it accumulates; .+",
        "Lightningは累積するバッチの平均をさらに平均するが、ここでは重みに応じて平均する",
    ),
    (
        r"the learning rate is multiplied by (.+) for (\d+) parameters?",
        "{1}個のパラメーターの学習率は、示した値の{0}倍",
    ),
    (
        r"the model is trained as \(f − its start\)/γ with γ = (.+)",
        "モデルは（f − 初期のf）/γとして学習（γ＝{0}）",
    ),
    (
        r"every seed starts from the trainer's present weights; .+",
        "どの乱数でも、渡されたTrainerのモデルの現在の重みから学習を始める",
    ),
    (
        r"the trainer has trained before: its optimizer's memory is not taken over",
        "渡されたTrainerは学習済みだが、オプティマイザーの内部状態は引き継がない",
    ),
    (
        r"the model is trained and timed without torch\.compile",
        "torch.compileを用いずに学習し、時間を測定した",
    ),
    (
        r"(tf32=\w+) is not set here: torch's own setting holds",
        "{0}は反映せず、PyTorchの設定のままとする",
    ),
    (
        r"auto_find_batch_size is off here: .+",
        "auto_find_batch_sizeは用いず、指定されたバッチサイズで学習する",
    ),
    (
        r"examples are read by the process that trains \((dataloader_num_workers=\d+) .+",
        "データは学習するプロセスが読み込む（{0}は用いない）",
    ),
    (
        r"evaluation runs in the precision of training",
        "評価も学習と同じ精度で行う",
    ),
    (
        r"EarlyStoppingCallback is not called: runs have their full length",
        "EarlyStoppingCallbackは用いず、最後まで学習する",
    ),
    (r"the callback (\w+) is not called", "コールバック{0}は呼び出さない"),
    (
        r"global batch size (\d+) = (\d+) \(micro-batch\) × (\d+) \(accumulation steps\) × (\d+) "
        r"\(devices\)",
        "全体のバッチサイズは{0} = {1}（マイクロバッチ）× {2}（勾配の累積）× {3}（装置の数）",
    ),
    (
        r"the trainer adds the gradients of its (\d+) micro-batches, .+ averaged, with (.+), "
        r"which gives the same updates",
        "Trainerは{0}個のマイクロバッチの勾配を平均せずに足し合わせる（損失がnum_items_in_batchを"
        "用いないため）。ここでは平均し、同じ更新になるよう換算した（{1}）",
    ),
    (
        r"the trainer drops the last (\d+) examples of a pass .+",
        "Trainerは1巡の最後の{0}件を捨てるが、ここではバッチを次の巡へ続ける",
    ),
    (
        r"the trainer's last update of a pass uses (\d+) examples; here batches of (\d+) run .+",
        "Trainerの1巡の最後の更新は{0}件だが、ここでは{1}件のバッチを次の巡へ続ける",
    ),
    (
        r"the trainer gives one loss for a batch: .+",
        "Trainerの損失はバッチ全体で1つのため、ノイズスケールは1件ごとではなく小さなバッチから測定し、"
        "範囲が広くなる",
    ),
    (
        r"the validation loss is the mean over all labels; .+",
        "検証データでの損失は全ラベルの平均（Trainerではバッチごとの平均の平均）",
    ),
    *_limits(r"memory available on the machine", "計算機の空きメモリ"),
    *_limits(r"memory free on the GPU", "GPUの空きメモリ"),
    *_limits(
        r"limit of the control group \(container\)", "コンテナ（コントロールグループ）の上限"
    ),
    (
        r"the trainer averages the means of its micro-batches; .+",
        "Trainerはマイクロバッチの平均をさらに平均するが、ここではバッチの全ラベルを等しく扱う",
    ),
)


def both(sentence: str) -> Text:
    """A sentence of the record in both languages; one that is not known stays English.

    Args:
        sentence: An assumption, or what the measurement said of itself.

    Example:
        >>> both("the baseline names no batch_size: 32 is assumed").ja
        '学習手順にバッチサイズの指定がないため、32とみなした'
    """
    for pattern, japanese in _SENTENCES:
        found = re.fullmatch(pattern, sentence)
        if found:
            parts = [_named(part) for part in found.groups()]
            return Text(verbatim(sentence), verbatim(japanese.format(*parts)))
    return Text(verbatim(sentence), verbatim(sentence))


_UNITS = {"days": "日", "hours": "時間", "minutes": "分", "seconds": "秒"}
_TIME = re.compile(rf"(about )?([\d.e+]+) ({'|'.join(_UNITS)})\b")
_STAGES = {
    "batches that grow": "増やしていくバッチ",
    "batches that are used again": "繰り返し使うバッチ",
    "feature-learning strengths": "特徴学習の強さγ",
    "robustness": "頑健さ",
}


def _named(part: str) -> str:
    """A part of a sentence in Japanese: a field's name, a time, the stages with their times."""
    field = names.FIELDS.get(part)
    if field is not None:
        return field.ja
    if not _TIME.search(part):
        return part
    written = _TIME.sub(lambda m: ("約" if m[1] else "") + m[2] + _UNITS[m[3]], part)
    for en, ja in _STAGES.items():
        written = written.replace(en, ja)
    return re.sub(r"stage ([ABC])", r"段階\1", written).replace(", ", "、")
