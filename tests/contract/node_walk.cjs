// Chat through the official client for Node: whole, streamed, with tools, and what it makes of errors.
// node node_walk.cjs FOLDER BASE_URL prints the client's version, or fails. FOLDER holds node_modules/openai.

const assert = require("node:assert/strict");
const [folder, baseURL] = process.argv.slice(2);
const { OpenAI } = require(require.resolve("openai", { paths: [folder] }));
const { VERSION } = require(require.resolve("openai/version", { paths: [folder] }));

const chat = new OpenAI({ baseURL, apiKey: "any", maxRetries: 0 }).chat.completions;
const parameters = {
  type: "object",
  properties: { parcel: { type: "integer", minimum: 0, maximum: 99 } },
  required: ["parcel"],
  additionalProperties: false,
};
const wishes = {
  model: "tunesmith-nano",
  messages: [{ role: "user", content: "Where is parcel 7?" }],
  temperature: 0,
  max_tokens: 60,
};
const withTools = {
  ...wishes,
  tools: [{ type: "function", function: { name: "track", strict: true, parameters } }],
  tool_choice: "required",
  parallel_tool_calls: false,
};

async function text() {
  const whole = await chat.create(wishes);
  assert.ok(whole.choices[0].message.content.length > 0);
  let said = "";
  let usage;
  for await (const chunk of await chat.create({ ...wishes, stream: true, stream_options: { include_usage: true } })) {
    said += chunk.choices[0]?.delta?.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(said, whole.choices[0].message.content);
  assert.deepEqual(
    [usage.prompt_tokens, usage.completion_tokens],
    [whole.usage.prompt_tokens, whole.usage.completion_tokens],
  );
}

async function tools() {
  const whole = await chat.create(withTools);
  const [call] = whole.choices[0].message.tool_calls;
  assert.equal(whole.choices[0].finish_reason, "tool_calls");
  assert.equal(typeof JSON.parse(call.function.arguments).parcel, "number");

  let parts = 0;
  const runner = chat.stream(withTools);
  runner.on("tool_calls.function.arguments.delta", () => { parts += 1; });
  const final = await runner.finalChatCompletion();
  const [streamed] = final.choices[0].message.tool_calls;
  assert.deepEqual(
    [streamed.type, streamed.function.name, streamed.function.arguments],
    ["function", "track", call.function.arguments],
  );
  assert.ok(parts > 1);

  const messages = [...wishes.messages, final.choices[0].message, { role: "tool", tool_call_id: streamed.id, content: "Ulm" }];
  const after = await chat.create({ ...withTools, messages, tool_choice: "none" });
  assert.equal(after.choices[0].message.tool_calls, undefined);
}

async function errors() {
  await assert.rejects(chat.create({ ...wishes, model: "nobody" }), { status: 404, code: "model_not_found" });
  const choice = { type: "function", function: { name: "nobody" } };
  const param = "tool_choice.function.name";
  await assert.rejects(chat.create({ ...withTools, tool_choice: choice, stream: true }), { status: 400, param });
}

async function leaving() {
  const stream = await chat.create({ ...wishes, stream: true });
  for await (const _ of stream) break;
  assert.ok(stream.controller.signal.aborted);
}

(async () => {
  for (const step of [text, tools, errors, leaving]) await step();
  console.log(`openai ${VERSION}`);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
