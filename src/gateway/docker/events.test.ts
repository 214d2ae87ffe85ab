import { afterEach, expect, test, vi } from "vitest";
import { Events } from "./events.ts";

afterEach(() => vi.useRealTimers());

test("an event is within a span that begins or ends in its millisecond", () => {
  vi.useFakeTimers();
  for (let ms = 1_796_031_497_000; ms < 1_796_031_497_400; ms += 1) {
    vi.setSystemTime(ms);
    const events = new Events();
    events.emit("container", "start", "a");
    // As clients write it: seconds with nine digits behind the point.
    const at = Number(`${Math.floor(ms / 1000)}.${String(ms % 1000).padStart(3, "0")}000000`);
    expect(events.between(at, at)).toHaveLength(1);
    expect(events.between(at + 0.0005)).toHaveLength(1);
    expect(events.between(at + 0.001)).toHaveLength(0);
    expect(events.between(0, at - 0.001)).toHaveLength(0);
  }
});
