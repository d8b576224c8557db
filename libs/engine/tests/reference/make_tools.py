"""Conversations that call tools: their text, tokens and the assistant's tokens, as transformers makes them.

    python make_tools.py

Writes `tools/`: a byte-level tokenizer, records as people have them, and what `apply_chat_template(messages, tools=tools)` makes
of them. The templates are written for this test; each does in its own words what the templates of a family do with tools.
"""
import json
import pathlib

from jinja2.exceptions import TemplateError
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

# As Hermes and Qwen2.5: tools in the system's turn, a call between tags, tools' answers gathered in one turn of the user.
HERMES = """\
{%- if tools %}
    {{- '<|open|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- 'You may call:\\n<tools>' }}
    {%- for tool in tools %}
        {{- '\\n' }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- '\\n</tools><|close|>\\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|open|>system\\n' + messages[0].content + '<|close|>\\n' }}
{%- endif %}
{%- for m in messages %}
    {%- if m.role == 'user' or (m.role == 'system' and not loop.first) %}
        {{- '<|open|>' + m.role + '\\n' + m.content + '<|close|>\\n' }}
    {%- elif m.role == 'assistant' %}
        {{- '<|open|>assistant\\n' }}
        {%- generation %}
        {%- if m.content %}
            {{- m.content }}
        {%- endif %}
        {%- for call in m.tool_calls or [] %}
            {%- if m.content or not loop.first %}
                {{- '\\n' }}
            {%- endif %}
            {%- if call.function is defined %}
                {%- set call = call.function %}
            {%- endif %}
            {{- '<call>{"name": "' + call.name + '", "arguments": ' }}
            {{- call.arguments | tojson }}
            {{- '}</call>' }}
        {%- endfor %}
        {{- '<|close|>' }}
        {%- endgeneration %}
        {{- '\\n' }}
    {%- elif m.role == 'tool' %}
        {%- if loop.index0 == 0 or messages[loop.index0 - 1].role != 'tool' %}
            {{- '<|open|>user' }}
        {%- endif %}
        {{- '\\n<result>' + m.content + '</result>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}
            {{- '<|close|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|open|>assistant\\n' }}
{%- endif %}
"""

# As Qwen3: the answer after the last question, and no other, stands behind its thought.
THINKING = """\
{%- set ns = namespace(question=0) %}
{%- for m in messages %}
    {%- if m.role == 'user' %}
        {%- set ns.question = loop.index0 %}
    {%- endif %}
{%- endfor %}
{%- if tools %}
    {{- '<|open|>system\\n' + tools | map(attribute='function.name') | join(', ') }}
    {{- '\\n' + tools | tojson(indent=2) + '<|close|>\\n' }}
{%- endif %}
{%- for m in messages %}
    {%- if m.role == 'assistant' %}
        {%- set thought = m.reasoning_content | default('') %}
        {{- '<|open|>assistant\\n' }}
        {%- generation %}
        {%- if loop.index0 > ns.question and (loop.last or thought) %}
            {{- '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' }}
        {%- endif %}
        {{- m.content | default('', true) }}
        {%- for call in m.tool_calls | default([]) %}
            {{- '<call name=' + call.function.name + '>' }}
            {%- for name, value in call.function.arguments.items() %}
                {{- '<' + name + '>' + (value if value is string else value | tojson(separators=(',', ':'), sort_keys=true)) + '</' + name + '>' }}
            {%- endfor %}
            {{- '</call>' }}
        {%- endfor %}
        {{- '<|close|>' }}
        {%- endgeneration %}
        {{- '\\n' }}
    {%- elif m.role == 'tool' %}
        {{- '<|open|>tool ' + m.name | default('') + '\\n' + m.content + '<|close|>\\n' }}
    {%- else %}
        {{- '<|open|>' + m.role + '\\n' + m.content + '<|close|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|open|>assistant\\n' }}
{%- endif %}
"""

# As Mistral: tools before the last question, all calls of a turn as one list, an answer beside the id of its call.
LISTED = """\
{{- bos_token }}
{%- set questions = messages | selectattr('role', 'equalto', 'user') | list %}
{%- for m in messages %}
    {%- if m.role == 'user' %}
        {%- if tools is not none and m == questions[-1] %}
            {{- '[TOOLS] ' + tools | tojson + '[/TOOLS]' }}
        {%- endif %}
        {{- '[ASK] ' + m.content + '[/ASK]' }}
    {%- elif m.tool_calls is defined and m.tool_calls is not none %}
        {%- generation %}
        {{- '[CALLS] [' }}
        {%- for call in m.tool_calls %}
            {%- set out = call.function | tojson %}
            {{- out[:-1] }}
            {%- if call.id is not defined or call.id | length != 9 %}
                {{- raise_exception('ids of calls have nine letters') }}
            {%- endif %}
            {{- ', "id": "' + call.id + '"}' }}
            {%- if not loop.last %}
                {{- ', ' }}
            {%- endif %}
        {%- endfor %}
        {{- ']' + eos_token }}
        {%- endgeneration %}
    {%- elif m.role == 'assistant' %}
        {%- generation %}
        {{- ' ' + m.content | trim + eos_token }}
        {%- endgeneration %}
    {%- elif m.role == 'tool' %}
        {{- '[ANSWER] {"content": ' + m.content | string + ', "id": "' + m.tool_call_id + '"}[/ANSWER]' }}
    {%- endif %}
{%- endfor %}
"""

# As those that put the text of the arguments between other texts.
TEXTS = """\
{%- if tools %}
    {{- 'Tools: ' + tools | map(attribute='function.name') | join(' ') + '\\n' }}
{%- endif %}
{%- for m in messages %}
    {{- '<|open|>' + m['role'] + '\\n' }}
    {%- if m['role'] == 'assistant' %}
        {%- generation %}
        {%- if m['tool_calls'] %}
            {%- for call in m['tool_calls'] %}
                {{- call['type'] + ':' + call['function']['name'] + '\\n' + call['function']['arguments'] + '\\n' }}
            {%- endfor %}
        {%- endif %}
        {{- (m['content'] or '') + '<|close|>' }}
        {%- endgeneration %}
        {{- '\\n' }}
    {%- else %}
        {{- m['content'] + '<|close|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|open|>assistant\\n' }}
{%- endif %}
"""

TEMPLATES = {"hermes": HERMES, "thinking": THINKING, "listed": LISTED, "texts": TEXTS}

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Of a <day> & \"place\"",
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string"}, "day": {"type": "integer", "default": 0}, "least": {"type": "number"}},
            "required": ["place"],
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}


def call(number, name, arguments):
    return {"id": f"call{number:05}", "type": "function", "function": {"name": name, "arguments": arguments}}


def answer(number, name, content):
    return {"role": "tool", "tool_call_id": f"call{number:05}", "name": name, "content": content}


def user(content):
    return {"role": "user", "content": content}


def assistant(content, *calls, **more):
    turn = {"role": "assistant", "content": content}
    return {**turn, **({"tool_calls": list(calls)} if calls else {}), **more}


ZURICH = {"place": "Zürich", "day": 1, "exact": True, "least": 0.5, "most": 1e20, "near": ["b", "a"], "by": {"z": None, "a": 2.0}}
RECORDS = [
    # One call, the arguments an object in its own order; content is null, as it is in what people have.
    {"tools": [WEATHER], "messages": [
        {"role": "system", "content": "Be brief"}, user("Rain in Zürich?"),
        assistant(None, call(1, "weather", ZURICH)), answer(1, "weather", "12° & \"rain\""), assistant("Yes.")]},
    # The same with its arguments as text.
    {"tools": [WEATHER], "messages": [
        {"role": "system", "content": "Be brief"}, user("Rain in Zürich?"),
        assistant(None, call(1, "weather", json.dumps(ZURICH))), answer(1, "weather", "12° & \"rain\""), assistant("Yes.")]},
    # Calls side by side after words, their answers, another call after a question, and words at the end.
    {"tools": [WEATHER, CLOCK], "messages": [
        user("And now?"), assistant("I look.", call(1, "weather", {"place": "Bern"}), call(2, "clock", {})),
        answer(1, "weather", "sun"), answer(2, "clock", "noon"), assistant("Sun at noon."),
        user("In Genf?"), assistant("", call(3, "weather", {"place": "Genf", "day": -2})), answer(3, "weather", "{\"sky\": \"grey\"}"),
        assistant("Grey.")]},
    # A conversation that ends with a call, thought about; keys that are null; no tools but in the calls.
    {"messages": [
        {"role": "user", "content": "Time?", "tool_calls": None, "name": None},
        assistant(None, call(1, "clock", ""), reasoning="The clock\nknows.")]},
    # Tools that are not called.
    {"tools": [CLOCK], "messages": [user("Hi"), assistant("Hello!")]},
]


def objects(record, as_text):
    """The record as a template wants it: transformers passes arguments on as they are."""
    def turned(made):
        given = made["function"]["arguments"]
        parsed = json.loads(given or "{}") if isinstance(given, str) else given
        if as_text:
            parsed = given if isinstance(given, str) and given else json.dumps(parsed, ensure_ascii=False)
        return {**made, "function": {**made["function"], "arguments": parsed}}

    def calling(turn):
        calls = turn.get("tool_calls")
        return {**turn, "tool_calls": [turned(made) for made in calls]} if calls else turn

    return [calling(turn) for turn in record["messages"]], record.get("tools")


def tokenizer(folder):
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("a", "l"), ("al", "l"), ("c", "all"), ("Ġ", "w")]
    vocabulary = {letter: number for number, letter in enumerate(letters + [left + right for left, right in merges])}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in ("<s>", "<|open|>", "<|close|>")])
    made.save(str(folder / "tokenizer.json"), pretty=False)
    config = {"bos_token": "<s>", "eos_token": "<|close|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config) + "\n")
    return PreTrainedTokenizerFast(tokenizer_object=made, **config)


def main():
    folder = pathlib.Path(__file__).parent / "tools"
    folder.mkdir(exist_ok=True)
    made = tokenizer(folder)
    (folder / "records.jsonl").write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in RECORDS))
    parts = []
    for name, source in TEMPLATES.items():
        rows = []
        for record in RECORDS:
            turns, tools = objects(record, name == "texts")
            try:
                out = made.apply_chat_template(
                    turns, tools=tools, chat_template=source, return_dict=True, return_assistant_tokens_mask=True
                )
                text = made.apply_chat_template(turns, tools=tools, chat_template=source, tokenize=False)
                asked = made.apply_chat_template(
                    turns[:-1], tools=tools, chat_template=source, tokenize=False, add_generation_prompt=True
                )
                marks = [0, *out["assistant_masks"], 0]
                edges = [place for place in range(len(marks) - 1) if marks[place] != marks[place + 1]]
                spoken = list(zip(edges[::2], edges[1::2]))
                rows.append({"text": text, "asked": asked, "tokens": out["input_ids"], "spoken": spoken})
            except TemplateError:
                rows.append(None)
        parts.append({"name": name, "source": source, "rows": rows})
    lines = lambda values: "[\n" + ",\n".join(json.dumps(value, ensure_ascii=False, separators=(",", ":")) for value in values) + "\n]"
    (folder / "rendered.json").write_text(lines(parts) + "\n")


main()
