// What session.json may say: how to compute, and nothing that reads or writes files or changes a log.

import { formatError, shown, usageError } from "./errors.mjs";

export const PROVIDER = "CPUExecutionProvider";
export const MOST_THREADS = 64;

const SESSION_OPTIONS = {
  graph_optimization_level: "graphOptimizationLevel",
  execution_mode: "executionMode",
  enable_mem_pattern: "enableMemPattern",
  enable_cpu_mem_arena: "enableCpuMemArena",
};
const CONFIG_ENTRIES = new Set(
  `optimization.disable_specified_optimizers optimization.enable_cast_chain_elimination
  optimization.enable_gelu_approximation session.allow_released_opsets_only session.disable_aot_function_inlining
  session.disable_cpu_ep_fallback session.disable_double_qdq_remover session.disable_prepacking
  session.disable_quant_qdq session.dynamic_block_base session.enable_quant_qdq_cleanup session.force_spinning_stop
  session.graph_optimizations_loop_level session.inter_op.allow_spinning session.intra_op.allow_spinning
  session.intra_op_thread_affinities session.qdq_matmulnbits_accuracy_level session.qdqisint8allowed
  session.set_denormal_as_zero session.strict_shape_type_inference session.use_device_allocator_for_initializers
  session.use_env_allocators`.split(/\s+/),
);

/** The options of a session that session.json asks for, without providers and threads; `more` names entries besides. */
export function optionsOf(config, more = []) {
  const { session_options: options = {}, config_entries: entries = {}, providers = [] } = config;
  const refused = [
    ...Object.keys(options).filter((name) => !Object.hasOwn(SESSION_OPTIONS, name)),
    ...Object.keys(entries).filter((name) => !CONFIG_ENTRIES.has(name) && !more.includes(name)),
    ...providers.filter(({ name, options: own }) => name !== PROVIDER || Object.keys(own).length).map(({ name }) => name),
    ...Object.keys(config.environment ?? {}),
  ];
  if (refused.length) throw formatError(`session.json may not have ${refused.map(shown).join(", ")}, which this loader refuses. Get the bundle again.`);
  const named = Object.entries(options).map(([name, value]) => [SESSION_OPTIONS[name], value === "off" ? "disabled" : value]);
  return { extra: { ...entries }, ...Object.fromEntries(named) };
}

/** Refuse a number of threads that is none; undefined asks for the bundle's policy. */
export function checkThreads(asked) {
  if (asked !== undefined && asked !== null && !(Number.isSafeInteger(asked) && asked >= 1)) {
    throw usageError(`threads is ${shown(asked)}. Expected a whole number from 1 on.`);
  }
}
