package supervisor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// gates turn off what a node for development has no use for: who of several API servers is alive, and devices.
const gates = "--feature-gates=APIServerIdentity=false,DynamicResourceAllocation=false"

// disabled are controllers with nothing to do on one node without a cloud, and without metrics to scale by.
var disabled = []string{
	"bootstrap-signer-controller", "token-cleaner-controller", "node-ipam-controller", "node-route-controller",
	"service-lb-controller", "cloud-node-lifecycle-controller", "persistentvolume-attach-detach-controller",
	"persistentvolume-expander-controller", "legacy-serviceaccount-token-cleaner-controller",
	"storage-version-migrator-controller", "volumeattributesclass-protection-controller",
	"certificatesigningrequest-cleaner-controller", "selinux-warning-controller", "ttl-controller",
	"horizontal-pod-autoscaler-controller", "validatingadmissionpolicy-status-controller",
}

// lateness lets the kernel serve the many timers of a component at once: most of what an idle cluster costs is waking up.
const lateness = 25 * time.Millisecond

// parts are the processes of the cluster, in the order in which they come up.
func parts(s Settings, admin, insecure *http.Client) []part {
	self := func(name string, args ...string) []string {
		return append([]string{binaries + "/devenv-node", name}, args...)
	}
	get := func(url string) func() error { return func() error { return fetch(insecure, url) } }
	env := environment()
	one := append(environment(), "GOMAXPROCS=1") // for those with little to do: no second thread looks for work in vain
	lean := append(environment(), "GOGC=50")     // for the two with most memory: half of it would be garbage
	return []part{
		{
			name: "containerd", env: env, // no slack: the pods' processes would inherit it
			argv:  []string{binaries + "/containerd", "--config", s.etc("containerd.toml")},
			probe: func() error { return dial("unix", s.socket()) },
		},
		{
			name: "etcd", env: lean, slack: lateness, argv: self("etcd", etcdFlags(s)...),
			probe: func() error { return dial("tcp", strings.TrimPrefix(etcdAddress, "https://")) },
		},
		{
			name: "kube-apiserver", env: lean, slack: lateness, after: []string{"etcd"},
			argv:  self("kube-apiserver", apiserverFlags(s)...),
			probe: adminProbe(s, "/readyz"),
		},
		{
			name: "kubelet", env: env, slack: lateness, after: []string{"containerd", "kube-apiserver"},
			argv: self("kubelet",
				"--config="+s.etc("kubelet.json"), "--kubeconfig="+s.etc("kubelet.kubeconfig"),
				"--hostname-override="+s.Node(), "--node-ip="+s.Network.Node.String(), "--root-dir="+kubeletDir),
			first: func() { markPods(s, admin) }, probe: get(kubeletHealth),
		},
		{
			name: "coredns", env: one, slack: lateness, after: []string{"kube-apiserver"},
			argv: self("coredns", "-conf", s.etc("Corefile")), probe: get(dnsReady),
		},
		{
			name: "kube-proxy", env: one, slack: lateness, after: []string{"kube-apiserver"},
			argv: self("kube-proxy", "--config="+s.etc("kube-proxy.json")), probe: get(proxyHealth),
		},
		{
			name: "kube-controller-manager", env: one, slack: lateness, after: []string{"kube-apiserver"},
			argv: self("kube-controller-manager", managerFlags(s)...), probe: get(manager),
		},
		{
			name: "kube-scheduler", env: one, slack: lateness, after: []string{"kube-apiserver"},
			argv: self("kube-scheduler",
				"--kubeconfig="+s.etc("kube-scheduler.kubeconfig"),
				"--authentication-kubeconfig="+s.etc("kube-scheduler.kubeconfig"),
				"--authorization-kubeconfig="+s.etc("kube-scheduler.kubeconfig"),
				"--bind-address=127.0.0.1", "--leader-elect=false", "--profiling=false", gates),
			probe: get(schedulerReady),
		},
		{
			name: "controllers", env: one, slack: lateness, after: []string{"kube-apiserver"},
			argv: self("controllers",
				"-kubeconfig", s.etc("controllers.kubeconfig"), "-root", s.state("volumes"), "-node", s.Node(),
				"-addresses", s.Network.Balancers.String()),
			probe: func() error { return nil },
		},
	}
}

// environment is what the components see: little, and our own programs first.
func environment() []string {
	return []string{
		"PATH=" + binaries + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "LANG=C.UTF-8", "TMPDIR=/tmp",
	}
}

func etcdFlags(s Settings) []string {
	return []string{
		"--name=" + s.Node(), "--data-dir=" + s.state("etcd"),
		"--listen-client-urls=" + etcdAddress, "--advertise-client-urls=" + etcdAddress,
		"--listen-peer-urls=https://127.0.0.1:2380", "--initial-advertise-peer-urls=https://127.0.0.1:2380",
		"--initial-cluster=" + s.Node() + "=https://127.0.0.1:2380",
		"--cert-file=" + s.pki("etcd.crt"), "--key-file=" + s.pki("etcd.key"),
		"--client-cert-auth", "--trusted-ca-file=" + s.pki("etcd-ca.crt"),
		"--peer-cert-file=" + s.pki("etcd.crt"), "--peer-key-file=" + s.pki("etcd.key"),
		"--peer-client-cert-auth", "--peer-trusted-ca-file=" + s.pki("etcd-ca.crt"),
		// the only member need not give others time to vote
		"--heartbeat-interval=250", "--election-timeout=1250",
		// what is written is safe in the log already: the database may follow ten times less often
		"--backend-batch-interval=1s",
		// the only member has nobody who would need old entries, which are kept in memory
		"--snapshot-count=1000", "--snapshot-catchup-entries=100",
		"--bootstrap-defrag-threshold-megabytes=50", "--log-level=warn",
	}
}

func apiserverFlags(s Settings) []string {
	return []string{
		"--etcd-servers=" + etcdAddress, "--etcd-cafile=" + s.pki("etcd-ca.crt"),
		"--etcd-certfile=" + s.pki("apiserver-etcd-client.crt"), "--etcd-keyfile=" + s.pki("apiserver-etcd-client.key"),
		"--bind-address=0.0.0.0", fmt.Sprintf("--secure-port=%d", apiPort),
		"--advertise-address=" + s.Network.Node.String(),
		"--tls-cert-file=" + s.pki("apiserver.crt"), "--tls-private-key-file=" + s.pki("apiserver.key"),
		"--client-ca-file=" + s.pki("ca.crt"), "--anonymous-auth=false", "--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
		"--service-cluster-ip-range=" + s.Network.Services.String(),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + s.pki("service-accounts.key"),
		"--service-account-signing-key-file=" + s.pki("service-accounts.key"),
		"--kubelet-preferred-address-types=InternalIP",
		"--kubelet-certificate-authority=" + s.pki("ca.crt"),
		"--kubelet-client-certificate=" + s.pki("apiserver-kubelet-client.crt"),
		"--kubelet-client-key=" + s.pki("apiserver-kubelet-client.key"),
		"--requestheader-client-ca-file=" + s.pki("front-proxy-ca.crt"),
		"--requestheader-allowed-names=front-proxy-client", "--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group", "--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + s.pki("front-proxy-client.crt"),
		"--proxy-client-key-file=" + s.pki("front-proxy-client.key"),
		"--enable-priority-and-fairness=false", "--profiling=false", "--event-ttl=30m", gates,
	}
}

func managerFlags(s Settings) []string {
	kubeconfig := s.etc("kube-controller-manager.kubeconfig")
	return []string{
		"--kubeconfig=" + kubeconfig, "--authentication-kubeconfig=" + kubeconfig,
		"--authorization-kubeconfig=" + kubeconfig, "--bind-address=127.0.0.1", "--leader-elect=false",
		"--use-service-account-credentials=true", "--root-ca-file=" + s.pki("ca.crt"),
		"--service-account-private-key-file=" + s.pki("service-accounts.key"),
		"--cluster-signing-cert-file=" + s.pki("ca.crt"), "--cluster-signing-key-file=" + s.pki("ca.key"),
		"--client-ca-file=" + s.pki("ca.crt"), "--requestheader-client-ca-file=" + s.pki("front-proxy-ca.crt"),
		"--allocate-node-cidrs=false", "--profiling=false", "--kube-api-qps=100", "--kube-api-burst=200",
		// without a cloud and with one node, what is looked at in turns can be looked at less often
		"--node-monitor-period=15s", "--node-monitor-grace-period=150s", gates,
		"--pvclaimbinder-sync-period=2m", "--resource-quota-sync-period=10m",
		"--flex-volume-plugin-dir=" + kubeletDir + "/flexvolumes",
		"--controllers=*,-" + strings.Join(disabled, ",-"),
	}
}

// adminClient speaks to the API server as the cluster's administrator.
func adminClient(s Settings) (*http.Client, error) {
	pair, err := tls.LoadX509KeyPair(s.pki("admin.crt"), s.pki("admin.key"))
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(s.pki("ca.crt"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	config := &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config}}, nil
}

// anyClient asks for health only, of servers on our own loopback that made their certificates themselves.
func anyClient() *http.Client {
	config := &tls.Config{InsecureSkipVerify: true}
	return &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
}

func adminProbe(s Settings, path string) func() error {
	return func() error {
		client, err := adminClient(s)
		if err != nil {
			return err
		}
		defer client.CloseIdleConnections()
		client.Timeout = 2 * time.Second
		return fetch(client, s.server()+path)
	}
}

func fetch(client *http.Client, url string) error {
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, response.Status)
	}
	return nil
}

func dial(network, address string) error {
	connection, err := net.DialTimeout(network, address, time.Second)
	if err != nil {
		return err
	}
	return connection.Close()
}
