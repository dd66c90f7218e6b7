"""`shoal bench`: Shoal's proxy beside others, over the same servers, measured in turns and judged by declared goals.

One file for each thing it does: what is measured (`figures`), what it has to be (`goals`), how figures are judged
(`estimate`), loads and scenarios (`rows` and what it imports), who is measured (`peers`, `subjects`, `stage`), the
order of a run (`run`), what is shown of it (`tables`, `page`).
"""
