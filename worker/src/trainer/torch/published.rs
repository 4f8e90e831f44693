//! The weights of a published model, in whichever of its formats they come.

use std::path::{Path, PathBuf};

use tch::Kind;
use unimse_data::torch_file::{self, TorchDtype};
use unimse_model::weights::{Located, WeightFiles};

/// Weights, and the files that they are in.
pub(super) struct Published {
    pub(super) weights: WeightFiles,
    pub(super) files: Vec<PathBuf>,
}

/// Opens a folder's `model.safetensors`, or where there is none its `pytorch_model.bin`, which is read without Python and runs nothing;
/// each in one file or several.
pub(super) fn open(folder: &Path) -> Result<Published, String> {
    let safe = ["model.safetensors", "model.safetensors.index.json"].map(|name| folder.join(name));
    let torch = if safe.iter().any(|path| path.is_file()) {
        None
    } else {
        torch_file::torch_files_of(folder).map_err(|error| error.to_string())?
    };
    let Some(files) = torch else {
        let weights = WeightFiles::of_folder(folder).map_err(|error| error.to_string())?;
        return Ok(Published { files: weights.paths().map(Path::to_owned).collect(), weights });
    };
    let mut weights = WeightFiles::default();
    for path in &files {
        let found = torch_file::read_torch_file(path).map_err(|error| error.to_string())?;
        let located = found.into_iter().map(|tensor| {
            let shape = tensor.shape.iter().map(|&size| size as i64).collect();
            (tensor.name, Located { kind: kind(tensor.dtype), shape, span: tensor.span })
        });
        weights.add_located(path, located.collect()).map_err(|error| error.to_string())?;
    }
    Ok(Published { weights, files })
}

fn kind(dtype: TorchDtype) -> Kind {
    match dtype {
        TorchDtype::F64 => Kind::Double,
        TorchDtype::F32 => Kind::Float,
        TorchDtype::F16 => Kind::Half,
        TorchDtype::BF16 => Kind::BFloat16,
        TorchDtype::I64 => Kind::Int64,
        TorchDtype::I32 => Kind::Int,
        TorchDtype::I16 => Kind::Int16,
        TorchDtype::I8 => Kind::Int8,
        TorchDtype::U8 => Kind::Uint8,
        TorchDtype::Bool => Kind::Bool,
    }
}
