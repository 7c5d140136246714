package provisioner

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	core "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

func TestAVolumeIsADirectoryThatAnyoneMayWriteToUntilItIsDeleted(t *testing.T) {
	d := &directories{root: t.TempDir(), node: "devenv"}
	volume, _, err := d.Provision(context.Background(), controller.ProvisionOptions{
		PVName: "pvc-1", PVC: &core.PersistentVolumeClaim{},
		StorageClass: &storage.StorageClass{ReclaimPolicy: ptr.To(core.PersistentVolumeReclaimDelete)},
	})
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(volume.Spec.Local.Path)
	if err != nil || info.Mode().Perm() != 0o777 {
		t.Errorf("%v, %v", info, err)
	}
	if err := os.WriteFile(filepath.Join(volume.Spec.Local.Path, "data"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.Delete(context.Background(), volume); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(volume.Spec.Local.Path); !os.IsNotExist(err) {
		t.Errorf("the directory is still there: %v", err)
	}
}

func TestADirectoryThatIsNotOursIsNotDeleted(t *testing.T) {
	d := &directories{root: t.TempDir(), node: "devenv"}
	elsewhere := t.TempDir()
	volume := &core.PersistentVolume{}
	volume.Name = "pvc-1"
	volume.Spec.Local = &core.LocalVolumeSource{Path: elsewhere}
	if d.Delete(context.Background(), volume) == nil {
		t.Error("deleted")
	}
	if _, err := os.Stat(elsewhere); err != nil {
		t.Error(err)
	}
}

func TestABlockVolumeIsRefused(t *testing.T) {
	d := &directories{root: t.TempDir(), node: "devenv"}
	claim := &core.PersistentVolumeClaim{Spec: core.PersistentVolumeClaimSpec{VolumeMode: ptr.To(core.PersistentVolumeBlock)}}
	if _, _, err := d.Provision(context.Background(), controller.ProvisionOptions{PVC: claim}); err == nil {
		t.Error("made")
	}
}
