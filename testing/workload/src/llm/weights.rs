//! The weights' file, in the safetensors format: the length of a header as u64, the header as JSON, the tensors.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, json};

use super::model::{Shape, Tensor};
use crate::alloc::map::Mapping;
use crate::files::{self, Noise};
use crate::sys::Machine;

/// Where a tensor lies in the file.
#[derive(Debug, Clone)]
pub struct Placed {
    pub tensor: Tensor,
    pub offset: u64,
}

/// Header with its length in front, and the tensors behind it.
fn layout(shape: &Shape) -> Result<(Vec<u8>, Vec<Placed>)> {
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), json!({ "made_by": "spark-trace-workload" }));
    let mut end = 0;
    let tensors = shape.tensors();
    for tensor in &tensors {
        let begin = end;
        end += tensor.bytes;
        let entry = json!({ "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [begin, end] });
        header.insert(tensor.name.clone(), entry);
    }
    let mut text = serde_json::to_vec(&header).context("header of the weights")?;
    // Spaces at the end are allowed, and keep the tensors aligned.
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text);
    let mut offset = bytes.len() as u64;
    let placed = tensors.into_iter().map(|tensor| {
        let placed = Placed { offset, tensor };
        offset = placed.offset + placed.tensor.bytes;
        placed
    });
    let placed = placed.collect();
    Ok((bytes, placed))
}

/// Sees to it that the file is there, and says where its tensors are. A file of another model is not touched.
pub fn ensure(path: &Path, shape: &Shape) -> Result<(Vec<Placed>, bool)> {
    let (header, placed) = layout(shape)?;
    let size = placed.last().map_or(0, |last| last.offset + last.tensor.bytes);
    let written = !path.try_exists().with_context(|| format!("cannot look at {}", path.display()))?;
    if written {
        let directory = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        let file = files::create_new(path)?;
        if let Err(error) = write(&file, &header, &placed, shape) {
            // Half a file would pass for a whole one next time; that it cannot be removed is the lesser news.
            let _ = std::fs::remove_file(path);
            return Err(error).with_context(|| format!("cannot write {size} bytes to {}", path.display()));
        }
        files::drop_cache(&file)?;
    } else if !has_header(path, &header, size)? {
        bail!("{} is not the model of --weights-size: remove it or name another --model-dir", path.display());
    }
    Ok((placed, written))
}

fn has_header(path: &Path, header: &[u8], size: u64) -> Result<bool> {
    use std::os::unix::fs::FileExt;
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut found = vec![0; header.len()];
    let same = file.read_exact_at(&mut found, 0).is_ok() && found == header;
    Ok(same && file.metadata().with_context(|| path.display().to_string())?.len() == size)
}

fn write(file: &File, header: &[u8], placed: &[Placed], shape: &Shape) -> Result<()> {
    let mut writer = BufWriter::with_capacity(files::BUFFER, file);
    writer.write_all(header)?;
    for Placed { tensor, .. } in placed {
        // As many inputs as a product sums up; so that a product is about as large as its input.
        let inputs = if tensor.shape.len() == 2 { tensor.shape[0] } else { 1 };
        let inputs = if tensor.name.starts_with("embedding") { 1 } else { inputs };
        let scale = (12.0 / inputs as f64).sqrt() as f32;
        write_tensor(&mut writer, tensor, scale, shape.hidden)?;
    }
    writer.flush()?;
    drop(writer);
    file.sync_all()?;
    Ok(())
}

/// Numbers spread evenly over `scale` around 0; bytes where the tensor is of bytes.
fn write_tensor(writer: &mut impl Write, tensor: &Tensor, scale: f32, seed: u64) -> Result<()> {
    let mut noise = Noise::new(seed ^ tensor.bytes.rotate_left(17) ^ tensor.name.len() as u64);
    let mut buffer = vec![0; files::BUFFER];
    let mut left = tensor.bytes;
    while left > 0 {
        let len = usize::try_from(left).unwrap_or(files::BUFFER).min(files::BUFFER);
        noise.fill(&mut buffer[..len]);
        if tensor.dtype == "F32" {
            for bytes in buffer[..len].chunks_exact_mut(4) {
                let number = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                // 24 bits are what an f32 holds exactly.
                let number = ((number >> 8) as f32 / 16_777_216.0 - 0.5) * scale;
                bytes.copy_from_slice(&number.to_le_bytes());
            }
        }
        writer.write_all(&buffer[..len])?;
        left -= len as u64;
    }
    Ok(())
}

/// The file, mapped to be read.
pub struct Mapped {
    mapping: Mapping,
    size: usize,
}

impl Mapped {
    #[inline(never)]
    pub fn open(path: &Path, machine: Machine) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let size = file.metadata().with_context(|| path.display().to_string())?.len();
        let len = machine.pages_up(size)?;
        let mapping = Mapping::new(len, libc::PROT_READ, libc::MAP_PRIVATE, Some(&file))
            .with_context(|| format!("cannot map {}", path.display()))?;
        Ok(Self { mapping, size: usize::try_from(size)? })
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: mapped to be read for as long as `self` lives. That nobody cuts the file short meanwhile is on the
        // user, as with any model that is mapped.
        unsafe {
            std::slice::from_raw_parts(std::ptr::with_exposed_provenance(self.mapping.address()), self.size)
        }
    }

    pub fn address(&self) -> usize {
        self.mapping.address()
    }
}
