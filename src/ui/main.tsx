/**
 * ui/: the dashboard, a program for the browser on the gateway's native API. Takes the nouns of model/ and
 * nothing else of the host's code; api/ speaks to the gateway, state/ keeps what several parts look
 * at, parts/ are small, pages/ and vm/ are what one sees. Bundled by scripts/lib/ui-bundle.ts.
 *
 * main.tsx: the places, and what is shown there.
 */
import { render } from "preact";
import { useEffect } from "preact/hooks";
import "./styles/base.css";
import "./styles/layout.css";
import "./styles/parts.css";
import "./styles/pages.css";
import "@xterm/xterm/css/xterm.css";
import { takeKeyFromAddress } from "./api/key.ts";
import { Frame } from "./parts/frame.tsx";
import type { Place } from "./parts/frame.tsx";
import { Create } from "./pages/create.tsx";
import { HostPage } from "./pages/host.tsx";
import { ImagesPage } from "./pages/images.tsx";
import { Login } from "./pages/login.tsx";
import { NetworksPage } from "./pages/networks.tsx";
import { SnapshotsPage } from "./pages/snapshots.tsx";
import { Vms } from "./pages/vms.tsx";
import { VolumesPage } from "./pages/volumes.tsx";
import { route, syncRoute } from "./state/route.ts";
import { checkSession, session } from "./state/session.ts";
import { useStore } from "./state/store.ts";
import "./state/theme.ts";
import { watchVms } from "./state/vms.ts";
import { VmPage } from "./vm/vm.tsx";

const PLACES: readonly Place[] = [
  { path: "vms", label: "VMs", icon: "vm" },
  { path: "snapshots", label: "Snapshots", icon: "snapshot" },
  { path: "images", label: "Images", icon: "image", admin: true },
  { path: "volumes", label: "Volumes", icon: "volume", admin: true },
  { path: "networks", label: "Networks", icon: "network" },
  { path: "host", label: "Host", icon: "host", admin: true },
];

function Page() {
  const [first = "vms", second, ...rest] = useStore(route);
  switch (first) {
    case "create":
      return <Create />;
    case "vms":
      if (second !== undefined) return <VmPage key={second} id={second} rest={rest} />;
      return <Vms />;
    case "snapshots":
      return <SnapshotsPage />;
    case "images":
      return <ImagesPage />;
    case "volumes":
      return <VolumesPage />;
    case "networks":
      return <NetworksPage />;
    case "host":
      return <HostPage />;
    default:
      return <Vms />;
  }
}

function App() {
  const who = useStore(session);
  useEffect(() => {
    if (who) return watchVms();
    return undefined;
  }, [who]);
  if (who === null) return <p class="starting">…</p>;
  if (who === undefined) return <Login />;
  return (
    <Frame places={PLACES.filter(({ admin }) => admin !== true || who.admin)}>
      <Page />
    </Frame>
  );
}

takeKeyFromAddress();
syncRoute();
// An address with another key, opened in this tab.
addEventListener("hashchange", () => {
  if (!takeKeyFromAddress()) return;
  syncRoute();
  void checkSession();
});
const place = document.getElementById("app");
if (place !== null) render(<App />, place);
// Without an answer there is still the page, which asks for a key.
checkSession().catch(() => (session.value = undefined));
