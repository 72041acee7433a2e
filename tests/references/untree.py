"""Traces as sequences of their own: prompt, the thinking kept, what closed it, one answer. Slow and literal."""


def untree(trace, budgets, thinking, summaries):
    """Return (ids, trained, advantages, place of each token in its answer) of each answer; the last cut's first trains z."""
    found = []
    last = len(budgets) - 1
    for s, cut in enumerate(trace.summaries):
        for a, summary in enumerate(cut):
            kept = list(trace.thinking) if s >= trace.end else list(trace.thinking)[: budgets[s]]
            close = list(trace.tail) if s >= trace.end else list(trace.inserted)
            ids = [*trace.problem.ids, *kept, *close, *summary.ids]
            trained, advantages = [False] * len(trace.problem.ids), [0.0] * len(trace.problem.ids)
            first = (s, a) == (last, 0)
            for place in range(len(kept)):
                segment = min(sum(place >= b for b in budgets), last)
                trained.append(first)
                advantages.append(float(thinking[segment]) if first else 0.0)
            for place in range(len(close)):
                own = first and trace.chosen[place]
                trained.append(own)
                advantages.append(float(thinking[trace.end]) if own else 0.0)
            trained += [True] * len(summary.ids)
            advantages += [float(summaries[s][a])] * len(summary.ids)
            found.append((ids, trained, advantages))
    return found
