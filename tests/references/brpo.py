"""BRPO's advantages as nested loops over prompts, roll-outs, budgets and summaries: slow and literal."""


def brpo(rewards, prior, ends, baseline="brpo"):
    """Return (think, summary) as nested lists, from section 3 of the paper's formulas; arguments as in the library."""
    think, summary = [], []
    for q in range(len(rewards)):
        group, last = rewards[q], ends[q]
        traces, budgets = len(group), len(prior)
        r = [[sum(group[g][s]) / len(group[g][s]) for s in range(budgets)] for g in range(traces)]
        returns = [[sum(prior[b] * r[g][b] for b in range(s, budgets)) for s in range(budgets)] for g in range(traces)]
        think_q, summary_q = [], []
        for g in range(traces):
            think_g, summary_g = [], []
            for s in range(budgets):
                own = 0.0
                if s > 0:
                    own = sum(2**i * r[g][i] for i in range(s)) / sum(2**i for i in range(s))
                    own *= sum(prior[b] for b in range(s, budgets))
                mean = sum(returns[other][s] for other in range(traces)) / traces
                if baseline == "brpo":
                    taken = (s * own + (budgets - s) * mean) / budgets
                else:
                    taken = {"own": own, "group": mean, "none": 0.0}[baseline]
                think_g.append(returns[g][s] - taken if s <= last[g] else 0.0)
                cut = [s] if s < last[g] else list(range(last[g], budgets))
                sharing = [one for budget in cut for one in group[g][budget]]
                if len(sharing) > 1:
                    middle = sum(sharing) / len(sharing)
                else:
                    middle = sum(r[other][s] for other in range(traces)) / traces
                summary_g.append([one - middle for one in group[g][s]])
            think_q.append(think_g)
            summary_q.append(summary_g)
        think.append(think_q)
        summary.append(summary_q)
    return think, summary
