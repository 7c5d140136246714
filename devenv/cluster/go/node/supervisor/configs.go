package supervisor

import (
	"encoding/base64"
	"fmt"
	"os"
	"runtime"
	"strings"
)

// Where the parts listen, inside: on the loopback, but for those that the host or pods must reach.
const (
	apiPort        = 6443
	etcdAddress    = "https://127.0.0.1:2379"
	kubeletHealth  = "http://127.0.0.1:10248/healthz"
	proxyHealth    = "http://127.0.0.1:10256/healthz"
	manager        = "https://127.0.0.1:10257/healthz"
	schedulerReady = "https://127.0.0.1:10259/healthz"
	dnsReady       = "http://127.0.0.1:8181/ready"
	pauseImage     = "devenv.local/pause:1"
)

// Inside our own mount namespace; the pods' files are in the state directory, these paths lead there.
const (
	binaries   = "/run/bin"
	cniConfig  = "/run/cni/conf"
	kubeletDir = "/var/lib/kubelet"
	podLogs    = "/var/log/pods"
)

// server is the API server's address, for the host and for the parts.
func (s Settings) server() string { return fmt.Sprintf("https://%s:%d", s.Network.Node, apiPort) }

// writeConfigs writes every file that a component reads at its start.
func writeConfigs(s Settings, snapshotter string) error {
	for _, user := range []string{
		"kubelet", "kube-controller-manager", "kube-scheduler", "kube-proxy", "coredns", "controllers", "simulate",
	} {
		if err := writeKubeconfig(s, s.etc(user+".kubeconfig"), user, s.Context()); err != nil {
			return err
		}
	}
	if err := writeKubeconfig(s, s.kubeconfig(), "admin", s.Context()); err != nil {
		return err
	}
	files := map[string]any{
		s.etc("kubelet.json"):             kubeletConfig(s),
		s.etc("kube-proxy.json"):          proxyConfig(s),
		cniConfig + "/10-devenv.conflist": cniConfigList(s),
	}
	for path, value := range files {
		if err := writeJSON(path, value); err != nil {
			return err
		}
	}
	texts := map[string]string{
		s.etc("containerd.toml"): containerdConfig(s, snapshotter),
		s.etc("Corefile"):        corefile(s),
		s.etc("resolv.conf"):     s.resolvConf(),
	}
	for path, text := range texts {
		if err := writeFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func writeKubeconfig(s Settings, path, user, context string) error {
	data := map[string]string{}
	for key, file := range map[string]string{"ca": "ca.crt", "crt": user + ".crt", "key": user + ".key"} {
		text, err := os.ReadFile(s.pki(file))
		if err != nil {
			return err
		}
		data[key] = base64.StdEncoding.EncodeToString(text)
	}

	config := m{
		"apiVersion": "v1", "kind": "Config", "current-context": context,
		"clusters": []m{{"name": context, "cluster": m{"server": s.server(), "certificate-authority-data": data["ca"]}}},
		"contexts": []m{{"name": context, "context": m{"cluster": context, "user": context}}},
		"users": []m{{"name": context, "user": m{
			"client-certificate-data": data["crt"], "client-key-data": data["key"],
		}}},
	}
	return writeJSON(path, config)
}

func kubeletConfig(s Settings) map[string]any {

	return m{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"authentication": m{
			"anonymous": m{"enabled": false}, "webhook": m{"enabled": true}, "x509": m{"clientCAFile": s.pki("ca.crt")},
		},
		"authorization":            m{"mode": "Webhook"},
		"tlsCertFile":              s.pki("kubelet-server.crt"),
		"tlsPrivateKeyFile":        s.pki("kubelet-server.key"),
		"address":                  s.Network.Node.String(),
		"readOnlyPort":             0,
		"healthzBindAddress":       "127.0.0.1",
		"clusterDNS":               []string{s.Network.Node.String()},
		"clusterDomain":            "cluster.local",
		"resolvConf":               s.etc("resolv.conf"),
		"containerRuntimeEndpoint": "unix://" + s.socket(),
		"cgroupDriver":             "cgroupfs",
		"cgroupRoot":               "/" + s.cgroup(),
		"failCgroupV1":             false,
		"failSwapOn":               false,
		"enforceNodeAllocatable":   []string{},
		"oomScoreAdj":              0, // lowering it needs a capability that not every host gives
		"protectKernelDefaults":    true,
		"podLogsDir":               podLogs,
		"volumePluginDir":          kubeletDir + "/flexvolumes",
		"containerLogMaxSize":      "10Mi",
		"containerLogMaxFiles":     2,
		// no registry could give an image back, and a full disk of a laptop is no reason to evict a database
		"imageGCHighThresholdPercent": 100,
		"imageGCLowThresholdPercent":  99,
		"evictionHard": m{
			"memory.available": "100Mi", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%",
		},
		"maxPods":                        200,
		"registryPullQPS":                0,
		"eventRecordQPS":                 50,
		"kubeAPIQPS":                     100,
		"kubeAPIBurst":                   200,
		"nodeStatusReportFrequency":      "5m",
		"nodeStatusUpdateFrequency":      "30s",
		"nodeLeaseDurationSeconds":       120, // renewed after a quarter of it
		"featureGates":                   m{"DynamicResourceAllocation": false},
		"enableProfilingHandler":         false,
		"enableDebugFlagsHandler":        false,
		"streamingConnectionIdleTimeout": "4h",
	}
}

func proxyConfig(s Settings) map[string]any {

	return m{
		"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
		"clientConnection":   m{"kubeconfig": s.etc("kube-proxy.kubeconfig")},
		"hostnameOverride":   s.Node(),
		"bindAddress":        "0.0.0.0",
		"healthzBindAddress": "127.0.0.1:10256",
		"metricsBindAddress": "127.0.0.1:10249",
		"clusterCIDR":        s.Network.Pods.String(),
		"mode":               "nftables",
		"nftables":           m{"minSyncPeriod": "50ms", "syncPeriod": "5m"},
		"conntrack": m{
			"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s",
		},
		"oomScoreAdj": 0,
	}
}

// cniConfigList routes to each pod on a link of its own: no bridge, so br_netfilter need not be loaded.
func cniConfigList(s Settings) map[string]any {

	return m{
		"cniVersion": "1.0.0", "name": "devenv",
		"plugins": []m{
			{
				"type": "ptp", "mtu": s.Network.MTU, "ipMasq": false,
				"ipam": m{
					"type": "host-local", "dataDir": "/run/cni/addresses",
					"ranges": [][]m{{{"subnet": s.Network.Pods.String()}}},
					"routes": []m{{"dst": "0.0.0.0/0"}},
				},
			},
			{"type": "portmap", "capabilities": m{"portMappings": true}, "snat": true, "backend": "nftables"},
		},
	}
}

// containerdConfig keeps every path to ourselves, so that no containerd on the host is met.
func containerdConfig(s Settings, snapshotter string) string {
	return fmt.Sprintf(`version = 3
root = %[1]q
state = "/run/containerd"
imports = []
disabled_plugins = [
  "io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
  "io.containerd.image-verifier.v1.bindir", "io.containerd.snapshotter.v1.erofs", "io.containerd.differ.v1.erofs",
  "io.containerd.snapshotter.v1.blockfile", "io.containerd.internal.v1.restart",
  "io.containerd.monitor.container.v1.restart",
]

[grpc]
  address = %[2]q
[ttrpc]
  address = "/run/containerd/containerd.sock.ttrpc"

[plugins.'io.containerd.internal.v1.opt']
  path = "/run/containerd/opt"

[[plugins.'io.containerd.transfer.v1.local'.unpack_config]]
  platform = "linux/%[7]s"
  snapshotter = %[3]q

[plugins.'io.containerd.cri.v1.images']
  snapshotter = %[3]q
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = %[4]q

[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = [%[5]q]
    conf_dir = %[6]q
    use_internal_loopback = true
  [plugins.'io.containerd.cri.v1.runtime'.containerd]
    default_runtime_name = "runc"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
        BinaryName = "%[5]s/runc"
        Root = "/run/runc"
        SystemdCgroup = false
`, s.state("containerd"), s.socket(), snapshotter, pauseImage, binaries, cniConfig, runtime.GOARCH)
}

func corefile(s Settings) string {
	forward := ""
	if len(s.Resolvers) > 0 {
		forward = "forward . " + strings.Join(s.Resolvers, " ") + "\n"
	}
	return fmt.Sprintf(`.:53 {
  bind %s
  errors
  ready 127.0.0.1:8181
  kubernetes cluster.local in-addr.arpa ip6.arpa {
    kubeconfig %s
    pods insecure
    fallthrough in-addr.arpa ip6.arpa
    ttl 5
  }
  %scache 30
}
`, s.Network.Node, s.etc("coredns.kubeconfig"), forward)
}
