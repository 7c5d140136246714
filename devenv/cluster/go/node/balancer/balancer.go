// Package balancer answers Services of type LoadBalancer: each gets an address of its own out of a block that the host
// routes to the node, where kube-proxy sends it on. So two Services may have the same port, and nothing listens.
package balancer

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	core "k8s.io/api/core/v1"
	failures "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typed "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
)

const retry = time.Second

// Run gives and takes addresses until the context ends.
func Run(ctx context.Context, client kubernetes.Interface, block netip.Prefix) {
	informer := informers.NewSharedInformerFactory(client, 0).Core().V1().Services().Informer()
	changed := make(chan struct{}, 1)
	touch := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	_, _ = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { touch() },
		UpdateFunc: func(any, any) { touch() },
		DeleteFunc: func(any) { touch() },
	})
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	broadcaster.StartRecordingToSink(&typed.EventSinkImpl{Interface: client.CoreV1().Events("")})
	events := broadcaster.NewRecorder(scheme.Scheme, core.EventSource{Component: "devenv"})
	go informer.Run(ctx.Done())
	cache.WaitForCacheSync(ctx.Done(), informer.HasSynced)
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
		var services []*core.Service
		for _, item := range informer.GetStore().List() {
			services = append(services, item.(*core.Service))
		}
		for service, address := range plan(services, block) {
			if wants(service) && !address.IsValid() {
				events.Eventf(service, core.EventTypeWarning, "NoAddress", "all addresses of %s are given away", block)
				continue
			}
			err := give(ctx, client, service, address)
			if err != nil && !failures.IsConflict(err) && !failures.IsNotFound(err) { // what changed comes again
				klog.ErrorS(err, "telling a Service its address", "service", klog.KObj(service))
				time.AfterFunc(retry, touch)
			}
		}
	}
}

// wants tells whether the Service is ours to answer.
func wants(service *core.Service) bool {
	return service.Spec.Type == core.ServiceTypeLoadBalancer && service.Spec.LoadBalancerClass == nil &&
		service.DeletionTimestamp == nil
}

// has is the address that the Service was given.
func has(service *core.Service) netip.Addr {
	if len(service.Status.LoadBalancer.Ingress) != 1 {
		return netip.Addr{}
	}
	address, _ := netip.ParseAddr(service.Status.LoadBalancer.Ingress[0].IP)
	return address
}

// plan is what must change: for each Service the address that it is to have, or none. The oldest comes first; who has
// an address of the block keeps it, and one that asks for a certain address (loadBalancerIP) gets it if it is free.
func plan(services []*core.Service, block netip.Prefix) map[*core.Service]netip.Addr {
	services = slices.SortedFunc(slices.Values(services), func(one, other *core.Service) int {
		if order := one.CreationTimestamp.Compare(other.CreationTimestamp.Time); order != 0 {
			return order
		}
		return strings.Compare(one.Namespace+"/"+one.Name, other.Namespace+"/"+other.Name)
	})
	changes, used := map[*core.Service]netip.Addr{}, map[netip.Addr]bool{}
	var waiting []*core.Service
	for _, service := range services {
		address := has(service)
		switch {
		case wants(service) && block.Contains(address) && !used[address]:
			used[address] = true
		case wants(service):
			waiting = append(waiting, service)
		case block.Contains(address):
			changes[service] = netip.Addr{}
		}
	}
	for _, service := range waiting {
		address := free(block, used, service.Spec.LoadBalancerIP)
		used[address] = true
		changes[service] = address
	}
	return changes
}

func free(block netip.Prefix, used map[netip.Addr]bool, asked string) netip.Addr {
	if address, err := netip.ParseAddr(asked); err == nil && block.Contains(address) && !used[address] {
		return address
	}
	for address := block.Addr().Next(); block.Contains(address.Next()); address = address.Next() {
		if !used[address] {
			return address
		}
	}
	return netip.Addr{}
}

func give(ctx context.Context, client kubernetes.Interface, service *core.Service, address netip.Addr) error {
	changed := service.DeepCopy()
	changed.Status.LoadBalancer = core.LoadBalancerStatus{}
	if address.IsValid() {
		mode := core.LoadBalancerIPModeVIP
		changed.Status.LoadBalancer.Ingress = []core.LoadBalancerIngress{{IP: address.String(), IPMode: &mode}}
	}
	_, err := client.CoreV1().Services(service.Namespace).UpdateStatus(ctx, changed, meta.UpdateOptions{})
	return err
}
