/** The host: whether all is well, its kernels, and what happened on it. */
import { useState } from "preact/hooks";
import type { KernelList } from "../../model/api/kernels.ts";
import type { CheckResult, DoctorReport } from "../../model/doctor.ts";
import { work } from "../api/client.ts";
import { EventList } from "../parts/event-list.tsx";
import { Button, Facts, PageHead, Section } from "../parts/basics.tsx";
import { Icon } from "../parts/icon.tsx";
import type { IconName } from "../parts/icon.tsx";
import { useAsk } from "../state/ask.ts";
import { bytes, plain } from "../state/format.ts";
import { session } from "../state/session.ts";
import { useStore } from "../state/store.ts";
import { events } from "../state/vms.ts";
import { doWork } from "../state/work.ts";

const MARKS: Record<CheckResult["status"], { icon: IconName; word: string }> = {
  ok: { icon: "check", word: "in order" },
  warn: { icon: "warn", word: "could be better" },
  fail: { icon: "close", word: "failed" },
  skip: { icon: "more", word: "not looked at" },
};

/** The last report, also after one has been elsewhere. */
let kept: DoctorReport | undefined;

function Doctor() {
  const [report, setReport] = useState(kept);
  const [busy, setBusy] = useState(false);
  const check = async (): Promise<void> => {
    setBusy(true);
    const found = await doWork("Check this host", (onProgress, signal) =>
      work<DoctorReport>("POST", "/v1/doctor", { onProgress, signal }),
    );
    if (found !== undefined) {
      kept = found;
      setReport(found);
    }
    setBusy(false);
  };
  const rank = { fail: 0, warn: 1, ok: 2, skip: 3 };
  return (
    <Section
      title="Doctor"
      aside={
        <Button
          label={report === undefined ? "Check" : "Check again"}
          disabled={busy}
          onClick={() => void check()}
        />
      }
    >
      {report === undefined && (
        <p class="muted">
          Looks at what this host can do, and what is in the way. It takes some seconds.
        </p>
      )}
      {report !== undefined && (
        <ul class="checks">
          {report.checks
            .toSorted((a, b) => rank[a.status] - rank[b.status])
            .map(({ name, status, detail, fix }) => (
              <li key={name} class={status}>
                <Icon name={MARKS[status].icon} />
                <div>
                  <p>
                    <span class="strong">{name.replaceAll("-", " ")}</span>{" "}
                    <span class="small mark">{MARKS[status].word}</span>
                  </p>
                  <p class="muted">{plain(detail)}</p>
                  {fix !== undefined && <p class="small">{plain(fix)}</p>}
                </div>
              </li>
            ))}
        </ul>
      )}
    </Section>
  );
}

function Kernels() {
  const { data } = useAsk<KernelList>("/v1/kernels");
  if (data === undefined) return null;
  return (
    <Section title="Kernels">
      <ul class="plain">
        {data.kernels.map((kernel) => (
          <li key={kernel.id}>
            <span class="mono">{kernel.version}</span>{" "}
            {kernel.current && <span class="tag">new VMs</span>}
            <span class="small muted block">
              {plain(kernel.source)}, {bytes(kernel.sizeBytes)}
              {kernel.usedBy.length > 0 && `, used by ${plain(kernel.usedBy.join(", "))}`}
            </span>
          </li>
        ))}
      </ul>
    </Section>
  );
}

/** The page. */
export function HostPage() {
  const who = useStore(session);
  const happened = useStore(events);
  return (
    <>
      <PageHead title="Host" />
      <div class="columns">
        <Doctor />
        <Section title="Gateway">
          <Facts
            of={[
              ["Version", who?.version ?? ""],
              ["Address", <span class="mono">{location.host}</span>],
              [
                "Key",
                who?.admin === true
                  ? "sees everything of the host"
                  : `project ${who?.project ?? ""}`,
              ],
            ]}
          />
        </Section>
        <Kernels />
        <Section title="What happened in the last hour">
          {happened.length === 0 ? (
            <p class="muted">Nothing.</p>
          ) : (
            <EventList events={happened.slice(0, 60)} named />
          )}
        </Section>
      </div>
    </>
  );
}
